package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A small call sends about askBytes and gets about answerBytes.
const (
	askBytes    = 256
	answerBytes = 128
)

// roundTrips measures how many small questions a second are answered over TLS connections of this process to itself, when
// that is all that is done: one after the other on each connection.
func roundTrips(connections int, d time.Duration) (float64, error) {
	certificate, err := throwaway()
	if err != nil {
		return 0, err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
	if err != nil {
		return 0, err
	}
	defer listener.Close() //nolint:errcheck // a probe's listener
	var group errgroup.Group
	var answered atomic.Int64
	end := time.Now().Add(d)
	for range connections {
		group.Go(func() error {
			c, err := listener.Accept()
			if err != nil {
				return err
			}
			defer c.Close() //nolint:errcheck // a probe's connection
			return answer(c)
		})
		group.Go(func() error {
			c, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec,noctx // it talks to itself
			if err != nil {
				return errors.Join(err, listener.Close())
			}
			defer c.Close() //nolint:errcheck // a probe's connection
			return ask(c, end, &answered)
		})
	}
	err = group.Wait()
	return float64(answered.Load()) / d.Seconds(), err
}

// answer answers until the other side has asked enough.
func answer(c net.Conn) error {
	question, reply := make([]byte, askBytes), make([]byte, answerBytes)
	for {
		if _, err := io.ReadFull(c, question); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if _, err := c.Write(reply); err != nil {
			return err
		}
	}
}

func ask(c net.Conn, end time.Time, answered *atomic.Int64) error {
	question, reply := make([]byte, askBytes), make([]byte, answerBytes)
	for time.Now().Before(end) {
		if _, err := c.Write(question); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, reply); err != nil {
			return err
		}
		answered.Add(1)
	}
	return nil
}

// throwaway makes a certificate that nobody checks.
func throwaway() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
