package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hodei-jobs/hodei/agent/mask"
	"github.com/hodei-jobs/hodei/agent/runner"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// newPrivateDir makes the folder for what must not reach a disk, the files of secrets, and for the socket of jobs. It lies in
// memory where the machine has a file system there, and else in the state folder.
func newPrivateDir(stateDir string, logger *slog.Logger) (string, error) {
	if memory := memoryDir(); memory != "" {
		dir := filepath.Join(memory, "hodei-agent-"+strconv.Itoa(os.Getuid())+"-"+instance(stateDir))
		err := makeAnew(dir)
		if err == nil {
			return dir, nil
		}
		logger.Warn("files with secrets are kept in the state folder and not in memory", "reason", err)
	}
	dir := filepath.Join(stateDir, "private")
	return dir, makeAnew(dir)
}

// makeAnew makes a folder for the agent's user alone, without what a former life of the agent has left in it.
func makeAnew(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing what a former agent has left of secrets: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // nobody else may have made it
		return fmt.Errorf("making the folder for secrets: %w", err)
	}
	return nil
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

// secretFile writes a secret to a file that only the agent's user may read, and returns its path.
func (t *attempt) secretFile(step int, s *hwpv1.StepSecret) (string, error) {
	dir := filepath.Join(t.secretDir(), strconv.Itoa(step))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder for the secret %s: %w", s.GetName(), err)
	}
	path := filepath.Join(dir, s.GetEnv())
	if err := os.WriteFile(path, s.GetValue(), 0o400); err != nil {
		return "", fmt.Errorf("writing the secret %s to a file: %w", s.GetName(), err)
	}
	return path, nil
}

// secretDir is where the files of the attempt's secrets lie. Epochs are numbers that no two attempts share.
func (t *attempt) secretDir() string {
	return filepath.Join(t.agent.privateDir, strconv.FormatUint(t.ref.GetEpoch(), 10))
}

// removeSecrets removes the files of the attempt's secrets.
func (t *attempt) removeSecrets() {
	for _, step := range t.assign.GetSteps() {
		for _, s := range step.GetSecrets() {
			if s.GetFile() {
				if err := os.RemoveAll(t.secretDir()); err != nil {
					t.agent.config.Logger.Error("files of secrets could not be removed", "folder", t.secretDir(), "error", err)
				}
				return
			}
		}
	}
}

// clean replaces secrets in what is told about the end of a step.
func (t *attempt) clean(o *hwpv1.Outcome) *hwpv1.Outcome {
	if o.GetMessage() != "" {
		o.Message = string(t.masks.Mask([]byte(o.GetMessage())))
	}
	return o
}
