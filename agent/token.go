package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxTokenBytes bounds what is read of a file with a token, which is a line.
const maxTokenBytes = 4096

// ReadToken reads an enrolment token, which others must not see in the list of processes, from a file; "-" is the standard input.
// The error says what is wrong with the file.
func ReadToken(path string, stdin io.Reader) (string, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		defer file.Close() //nolint:errcheck // it is only read
		stdin = file
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxTokenBytes+1))
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(data) > maxTokenBytes {
		return "", errors.New("reading the token: there is no token; give the secret that `hodei token create` prints, and nothing else")
	}
	return token, nil
}
