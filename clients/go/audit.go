package hodei

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// AuditRecords yields the records of the audit trail that match, the newest first. A namespace that is not set is the client's. Its
// page size is how many records are asked for at once.
func (c *Client) AuditRecords(ctx context.Context, filter *adminv1.ListAuditRecordsRequest) iter.Seq2[*adminv1.AuditRecord, error] {
	return pages(ctx, c, func(token string) ([]*adminv1.AuditRecord, string, error) {
		request := proto.CloneOf(filter)
		request.Namespace = cmp.Or(request.GetNamespace(), c.config.Namespace)
		request.PageSize, request.PageToken = cmp.Or(request.GetPageSize(), pageSize), token
		res, err := c.Raw.Audit.ListAuditRecords(ctx, request)
		return res.GetRecords(), res.GetNextPageToken(), err
	})
}

// AuditKey returns the public key of the trail's checkpoints in PEM, for who verifies an export.
func (c *Client) AuditKey(ctx context.Context) (string, error) {
	var key string
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Audit.GetAuditKey(ctx, &adminv1.GetAuditKeyRequest{})
		key = res.GetPublicKeyPem()
		return err
	})
	return key, err
}

// ExportAudit writes the audit trail as it is stored, in JSON lines, from a record on (0: the oldest), with its signed checkpoints and
// one at the end. It goes on where it was through restarts of the server. It ends early with an error of w.
func (c *Client) ExportAudit(ctx context.Context, from uint64, w io.Writer) error {
	e := &export{client: c, next: from, w: w}
	return cmp.Or(c.resume(ctx, func() (bool, error) { return e.once(ctx) }), e.failed)
}

type export struct {
	client *Client
	next   uint64 // the first record that was not written yet
	w      io.Writer
	failed error // what trying again does not mend
}

func (e *export) once(ctx context.Context) (received bool, err error) {
	request := new(adminv1.ExportAuditRecordsRequest)
	if e.next > 0 {
		request.FromSequence = strconv.FormatUint(e.next, 10)
	}
	stream, err := e.client.Raw.Audit.ExportAuditRecords(ctx, request)
	if err != nil {
		return false, err
	}
	defer stream.Close() //nolint:errcheck // what counts has arrived
	for e.failed == nil {
		res, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return true, nil // only the server's word ends a stream so
		}
		if err != nil {
			return received, err
		}
		received = true
		e.failed = e.take(res.GetLines())
	}
	return true, nil
}

// take writes whole lines, and notes where to go on behind the last one: a record, or a checkpoint, which names the last record before it.
func (e *export) take(lines []byte) error {
	body, ok := bytes.CutSuffix(lines, []byte("\n"))
	if !ok {
		return errors.New("the server has sent a part of a line of the audit trail")
	}
	if _, err := e.w.Write(lines); err != nil {
		return fmt.Errorf("writing the audit trail: %w", err)
	}
	var last struct {
		Record     *uint64 `json:"seq"`
		Checkpoint *uint64 `json:"checkpoint"`
	}
	err := json.Unmarshal(body[bytes.LastIndexByte(body, '\n')+1:], &last)
	number := cmp.Or(last.Record, last.Checkpoint)
	if err != nil || number == nil {
		return errors.New("the server has sent a line of the audit trail without the number of a record")
	}
	e.next = *number + 1
	return nil
}
