package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"strconv"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
)

// auditService serves hodei.admin.v1.AuditService.
type auditService struct{ trail *audit.Keeper }

// exportBytes is how much of an export goes into one message, or a line more.
const exportBytes = 256 << 10

func (s *auditService) ListAuditRecords(ctx context.Context, req *adminv1.ListAuditRecordsRequest) (*adminv1.ListAuditRecordsResponse, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	if namespace == access.Everywhere {
		namespace = ""
	}
	key, err := decodePageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var before uint64
	if key != "" {
		if before, err = strconv.ParseUint(key, 10, 64); err != nil {
			return nil, errPageToken(req.GetPageToken())
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	records, next, err := s.trail.List(ctx, audit.Filter{
		Namespace: namespace, Actor: req.GetActor(), Action: req.GetAction(), Outcome: req.GetOutcome(), Target: req.GetTarget(),
		Since: instant(req.GetSince()), Until: instant(req.GetUntil()),
	}, before, size, true)
	if err != nil {
		return nil, err
	}
	res := &adminv1.ListAuditRecordsResponse{}
	for i := range records {
		res.Records = append(res.Records, auditRecordToProto(&records[i]))
	}
	if next > 0 {
		res.NextPageToken = encodePageToken(strconv.FormatUint(next, 10))
	}
	return res, nil
}

func auditRecordToProto(r *chain.Record) *adminv1.AuditRecord {
	return &adminv1.AuditRecord{
		Sequence: strconv.FormatUint(r.Seq, 10), Time: timestamp(r.Time), Actor: r.Actor, Credential: r.Credential, Address: r.Address,
		Action: r.Action, Namespace: r.Namespace, Targets: r.Targets, Outcome: r.Outcome, Reason: r.Reason, Details: r.Details,
		Previous: hex.EncodeToString(r.Prev[:]),
	}
}

func (s *auditService) ExportAuditRecords(
	ctx context.Context, req *adminv1.ExportAuditRecordsRequest, stream adminv1connect.AuditServiceExportAuditRecordsServerStream,
) error {
	var from uint64
	if text := req.GetFromSequence(); text != "" {
		var err error
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "from_sequence: %q is no number of a record", text)
		}
	}
	var lines bytes.Buffer
	send := func() error {
		defer lines.Reset()
		return stream.Send(&adminv1.ExportAuditRecordsResponse{Lines: bytes.Clone(lines.Bytes())})
	}
	err := s.trail.Export(ctx, from, func(line []byte) error {
		lines.Write(line)
		lines.WriteByte('\n')
		if lines.Len() < exportBytes {
			return nil
		}
		return send()
	})
	if err != nil || lines.Len() == 0 {
		return err
	}
	return send()
}

func (s *auditService) GetAuditKey(context.Context, *adminv1.GetAuditKeyRequest) (*adminv1.GetAuditKeyResponse, error) {
	return &adminv1.GetAuditKeyResponse{PublicKeyPem: string(s.trail.PublicKeyPEM())}, nil
}
