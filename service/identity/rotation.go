package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"

	"github.com/hodei-jobs/hodei/service/job"
)

// Rotate makes a new root, which signs everything from now on. The one before is trusted beside it until Retire; its key is given up
// at once. A *job.Error says that a rotation is under way already. After another error the rotation may have come about or not;
// the next call, or the next boot, completes it if it was decided.
//
// What is written, in order: the new root signed by the old one, the new key, and then the new list of roots under another name,
// which decides it. Then key and list take the places of the old ones, and what the old root has signed for the server is renewed.
func (a *Authority) Rotate() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.trust.Load()
	t, err := a.open() // which ends a rotation that was decided and not completed
	if err != nil {
		return err
	}
	if t.root.certificate.Equal(before.root.certificate) {
		if t.former != nil {
			return job.Errorf(job.CodePrecondition, job.ReasonUnavailable,
				"a rotation of the authority is under way: the root %s is still trusted; end that with `hodei admin authority retire`", pinOf(t.former))
		}
		if err := a.prepareRotation(t.root); err != nil {
			return err
		}
		if t, err = a.open(); err != nil {
			return err
		}
	}
	a.trust.Store(t)
	return nil
}

// prepareRotation makes a new root and decides for it.
func (a *Authority) prepareRotation(old *keyPair) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := a.rootTemplate(pkix.Name{CommonName: fmt.Sprintf("Hodei Jobs CA %s", a.now().UTC().Format("2006-01-02T15:04:05Z"))})
	fresh, err := sign(template, key, &keyPair{certificate: template, key: key})
	if err != nil {
		return err
	}
	// For those who know only the old root it vouches for the server alone, so there is nothing below it; the old root would have no
	// room for that either.
	template.SubjectKeyId = fresh.certificate.SubjectKeyId
	template.MaxPathLen, template.MaxPathLenZero = 0, true
	cross, err := sign(template, key, old)
	if err != nil {
		return err
	}
	if err := a.saveCertificates(crossFile, cross.certificate); err != nil {
		return err
	}
	if err := a.saveKey(nextFile, key); err != nil {
		return err
	}
	return a.saveCertificates(nextFile, fresh.certificate, old.certificate)
}

// finishRotation completes a rotation that was decided, and forgets one that was not, or that is over.
func (a *Authority) finishRotation() error {
	_, err := os.Stat(a.path(nextFile + certificatePE))
	if errors.Is(err, os.ErrNotExist) {
		return a.remove(nextFile + keyPE)
	}
	if err != nil {
		return err
	}
	for _, ending := range []string{keyPE, certificatePE} {
		err := a.rename(nextFile+ending, caFile+ending)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // else the key is in its place already
			return fmt.Errorf("completing the rotation of the authority: %w", err)
		}
	}
	return nil
}

// openFormer takes in the root before, if the list of roots has one.
func (a *Authority) openFormer(t *trust, roots []*x509.Certificate) error {
	crossPath := a.path(crossFile + certificatePE)
	if len(roots) < 2 {
		return a.remove(crossFile + certificatePE)
	}
	cross, err := readCertificates(crossPath)
	if err != nil {
		return fmt.Errorf("%s lists two roots, but the certificate that joins them cannot be used: %w; restore it from a backup, "+
			"or remove the second root from %s, which ends the trust in it", a.CACertificatePath(), err, a.CACertificatePath())
	}
	t.former, t.cross = roots[1], cross[0]
	if len(roots) > 2 || !t.root.key.PublicKey.Equal(t.cross.PublicKey) || t.cross.CheckSignatureFrom(t.former) != nil {
		return fmt.Errorf("%s must list one root, or the two that %s joins; restore both from one backup, or remove all but the first root from %s",
			a.CACertificatePath(), crossPath, a.CACertificatePath())
	}
	return nil
}

// Retire ends the trust in the root before: certificates that it has signed are refused in new handshakes from now on, and clients
// that know only that root no longer know the server. A *job.Error says that there is none.
func (a *Authority) Retire() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trust.Load().former == nil {
		return job.Errorf(job.CodePrecondition, job.ReasonUnavailable, "no rotation of the authority is under way: there is one root")
	}
	if err := a.saveCertificates(caFile, a.trust.Load().root.certificate); err != nil {
		return err
	}
	t := *a.trust.Load()
	t.former, t.cross = nil, nil
	a.trust.Store(t.complete(&keyPair{certificate: t.server.Leaf, key: t.server.PrivateKey.(*ecdsa.PrivateKey)}))
	return a.remove(crossFile + certificatePE)
}
