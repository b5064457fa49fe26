package hodei_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

// home gives the test a folder for settings, and an environment without any.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	for _, name := range []string{
		"HODEI_URL", "HODEI_CA", "HODEI_CA_PIN", "HODEI_CERT", "HODEI_KEY", "HODEI_TOKEN", "HODEI_TOKEN_FILE", "HODEI_CONTEXT", "HODEI_NAMESPACE",
	} {
		t.Setenv(name, "")
	}
	return filepath.Join(dir, "hodei", "config.toml")
}

func TestConfigComesFromOptionsThenVariablesThenTheContext(t *testing.T) {
	path := home(t)
	if _, err := hodei.ResolveConfig(hodei.Config{}); !errors.Is(err, hodei.ErrNoServer) {
		t.Errorf("without settings: %v", err)
	}
	file, err := hodei.LoadConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.Contexts["one"] = hodei.Config{URL: "https://one", CA: "one.pem", Namespace: "ns"}
	file.Contexts["two"] = hodei.Config{URL: "https://two"}
	file.Current = "one"
	if err := file.Save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of contexts has mode %v, %v", info.Mode(), err)
	}
	expect := func(override hodei.Config, want hodei.Config) {
		t.Helper()
		if got, err := hodei.ResolveConfig(override); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	one := hodei.Config{URL: "https://one", CA: "one.pem", Namespace: "ns", Context: "one"}
	expect(hodei.Config{}, one)
	expect(hodei.Config{Context: "two"}, hodei.Config{URL: "https://two", Context: "two"})
	t.Setenv("HODEI_CONTEXT", "two")
	expect(hodei.Config{}, hodei.Config{URL: "https://two", Context: "two"})
	t.Setenv("HODEI_URL", "https://variable")
	expect(hodei.Config{}, hodei.Config{URL: "https://variable"})
	expect(hodei.Config{URL: "https://option", Namespace: "x"}, hodei.Config{URL: "https://option", Namespace: "x"})
	if _, err := hodei.ResolveConfig(hodei.Config{Context: "nope"}); err == nil || !strings.Contains(err.Error(), `no context "nope"`) {
		t.Errorf("an unknown context gave %v", err)
	}
}

// A token for one user beside the certificate of another would leave open who calls.
func TestWhoCallsIsSaidByOnePlace(t *testing.T) {
	home(t)
	file, err := hodei.LoadConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	login := hodei.Config{URL: "https://a", CA: "ca", Cert: "login.pem", Key: "login.pem", Login: "lgn_1", RenewableUntil: "2026-01-01T00:00:00Z"}
	file.Contexts["login"] = login
	file.Contexts["script"] = hodei.Config{URL: "https://a", CAPin: "sha256:x", TokenFile: "token"}
	if err := file.Save(); err != nil {
		t.Fatal(err)
	}
	login.Context = "login"
	for name, c := range map[string]struct {
		override  hodei.Config
		variables map[string]string
		want      hodei.Config
	}{
		"the context": {hodei.Config{Context: "login"}, nil, login},
		"a token in a variable": {
			hodei.Config{Context: "login"}, map[string]string{"HODEI_TOKEN": "t"}, hodei.Config{URL: "https://a", CA: "ca", Token: "t"},
		},
		"a file of a token in a variable": {
			hodei.Config{Context: "login"}, map[string]string{"HODEI_TOKEN_FILE": "f"}, hodei.Config{URL: "https://a", CA: "ca", TokenFile: "f"},
		},
		"a certificate in variables": {
			hodei.Config{Context: "script"},
			map[string]string{"HODEI_CERT": "c", "HODEI_KEY": "k"},
			hodei.Config{URL: "https://a", CAPin: "sha256:x", Cert: "c", Key: "k"},
		},
		"a certificate as an option beats a token in a variable": {
			hodei.Config{Context: "login", Cert: "c", Key: "k"}, map[string]string{"HODEI_TOKEN": "t"}, hodei.Config{URL: "https://a", CA: "ca", Cert: "c", Key: "k"},
		},
		"both as options": {
			hodei.Config{Context: "script", Cert: "c", Key: "k", Token: "t"},
			nil,
			hodei.Config{URL: "https://a", CAPin: "sha256:x", Cert: "c", Key: "k", Token: "t"},
		},
		"a CA replaces a pin": {
			hodei.Config{Context: "script", CA: "other"}, nil, hodei.Config{URL: "https://a", CA: "other", TokenFile: "token"},
		},
		"a pin replaces a CA": {
			hodei.Config{Context: "login"},
			map[string]string{"HODEI_CA_PIN": "sha256:y", "HODEI_TOKEN": "t"},
			hodei.Config{URL: "https://a", CAPin: "sha256:y", Token: "t"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range c.variables {
				t.Setenv(variable, value)
			}
			c.want.Context = c.override.Context
			if got, err := hodei.ResolveConfig(c.override); err != nil || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestTokenIsNeverWritten(t *testing.T) {
	path := home(t)
	file, err := hodei.LoadConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config := hodei.Config{URL: "https://a", Token: "hidden"}
	file.Contexts["a"] = config
	if err := file.Save(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(config)
	if err != nil || strings.Contains(string(data)+string(shown), "hidden") {
		t.Errorf("wrote %s and %s, %v", data, shown, err)
	}
}

func TestUnknownKeyInTheFileOfContextsIsAnError(t *testing.T) {
	path := home(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"curent = 'x'\n": "curent", "= nonsense": "not valid TOML"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := hodei.ResolveConfig(hodei.Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v", text, err)
		}
	}
}

func TestNewSaysWhatIsWrongWithItsSettings(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, config := range map[string]hodei.Config{
		"https://host:7443":           {URL: "http://plain"},
		"no PEM certificate":          {URL: "https://x", CA: empty},
		"reading the server's CA":     {URL: "https://x", CA: filepath.Join(dir, "none")},
		"reading the client certific": {URL: "https://x", Cert: empty, Key: empty},
	} {
		if _, err := hodei.New(t.Context(), hodei.WithConfig(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gave %v", config, err)
		}
	}
}
