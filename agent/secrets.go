package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hodei-jobs/hodei/agent/mask"
	"github.com/hodei-jobs/hodei/agent/runner"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// newPrivateDir makes the folder for what must not reach a disk, the files of secrets, and for the socket of jobs. It lies in
// memory where the machine has a file system there, and else in the state folder.
func newPrivateDir(config Config) (*os.Root, error) {
	if memory := memoryDir(); memory != "" {
		root, err := makeAnew(filepath.Join(memory, "hodei-agent-"+strconv.Itoa(os.Getuid())+"-"+instance(config.StateDir)), config.users)
		if err == nil {
			return root, nil
		}
		config.Logger.Warn("files with secrets are kept in the state folder and not in memory", "reason", err)
	}
	return makeAnew(filepath.Join(config.StateDir, "private"), config.users)
}

// makeAnew makes a folder of the agent's own, without what a former life of the agent has left in it.
func makeAnew(dir string, u *users) (*os.Root, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("removing what a former agent has left of secrets: %w", err)
	}
	err := os.Mkdir(dir, 0o700) // nobody else may have made it
	if err != nil {
		return nil, fmt.Errorf("making the folder for secrets: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err == nil {
		err = root.Chmod(".", u.mode())
	}
	if err != nil {
		return nil, fmt.Errorf("opening the folder for secrets: %w", err)
	}
	return root, nil
}

// maskSecrets has the secrets of all steps replaced in everything that the attempt writes.
func (t *attempt) maskSecrets() {
	var all []mask.Secret
	for _, step := range t.assign.GetSteps() {
		for _, s := range step.GetSecrets() {
			all = append(all, mask.Secret{Name: s.GetName(), Value: s.GetValue()})
		}
	}
	if len(all) == 0 {
		return
	}
	for _, warning := range t.masks.Add(all...) {
		t.agent.config.Logger.Warn(warning, "job", t.ref.GetJobId())
	}
}

// secretEnv returns the variables that give a step its secrets. An error is a *runner.StartError.
func (t *attempt) secretEnv(i int, step *hwpv1.Step) ([]string, error) {
	var env []string
	for _, s := range step.GetSecrets() {
		if s.GetFile() {
			path, err := t.secretFile(i, s)
			if err != nil {
				return nil, &runner.StartError{ExitCode: runner.ExitFailure, Message: err.Error()}
			}
			env = append(env, s.GetEnv()+"="+path)
			continue
		}
		if bytes.IndexByte(s.GetValue(), 0) >= 0 {
			return nil, runner.Invalid(runner.ExitNotExecutable,
				"the secret %s has a NUL byte, which a variable cannot have; give it to the step as a file", s.GetName())
		}
		env = append(env, s.GetEnv()+"="+string(s.GetValue()))
	}
	return env, nil
}

// secretFile writes a secret to a file that only the step's user may read, and returns its path. The folders stay the agent's.
func (t *attempt) secretFile(step int, s *hwpv1.StepSecret) (string, error) {
	root, dir := t.agent.private, t.secretDir()
	for _, name := range []string{dir, filepath.Join(dir, strconv.Itoa(step))} {
		err := root.Mkdir(name, 0o700)
		if err == nil {
			err = root.Chmod(name, t.agent.config.users.mode()) // whatever the agent's umask is
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("making the folder for the secret %s: %w", s.GetName(), err)
		}
	}
	name := filepath.Join(dir, strconv.Itoa(step), s.GetEnv())
	file, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o400)
	if err == nil {
		_, err = file.Write(s.GetValue())
		if user := t.user(); user != nil {
			err = errors.Join(err, file.Chown(int(user.UID), int(user.GID)))
		}
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return "", fmt.Errorf("writing the secret %s to a file: %w", s.GetName(), err)
	}
	return filepath.Join(root.Name(), name), nil
}

// secretDir is where the files of the attempt's secrets lie, below the private folder. Epochs are numbers that no two attempts share.
func (t *attempt) secretDir() string { return strconv.FormatUint(t.ref.GetEpoch(), 10) }

// removeSecrets removes the files of the attempt's secrets.
func (t *attempt) removeSecrets() error {
	for _, step := range t.assign.GetSteps() {
		for _, s := range step.GetSecrets() {
			if s.GetFile() {
				return t.agent.private.RemoveAll(t.secretDir())
			}
		}
	}
	return nil
}

// clean replaces secrets in what is told about the end of a step.
func (t *attempt) clean(o *hwpv1.Outcome) *hwpv1.Outcome {
	if o.GetMessage() != "" {
		o.Message = string(t.masks.Mask([]byte(o.GetMessage())))
	}
	return o
}
