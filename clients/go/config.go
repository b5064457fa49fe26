package hodei

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// Config says how to reach a server. The files are paths of PEM files.
type Config struct {
	URL       string `toml:"url" json:"url" yaml:"url"`
	CA        string `toml:"ca,omitempty" json:"ca,omitempty" yaml:"ca,omitempty"`
	Cert      string `toml:"cert,omitempty" json:"cert,omitempty" yaml:"cert,omitempty"`
	Key       string `toml:"key,omitempty" json:"key,omitempty" yaml:"key,omitempty"`
	Namespace string `toml:"namespace,omitempty" json:"namespace,omitempty" yaml:"namespace,omitempty"`
	// Context is the name of the context that the values came from; empty for none.
	Context string `toml:"-" json:"context,omitempty" yaml:"context,omitempty"`
}

// ConfigFile is the file of contexts, $XDG_CONFIG_HOME/hodei/config.toml.
type ConfigFile struct {
	Current  string            `toml:"current"`
	Contexts map[string]Config `toml:"contexts"`
	path     string
}

// ConfigPath returns where the file of contexts lies, whether it is there or not.
func ConfigPath() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the folder for settings: %w; set XDG_CONFIG_HOME", err)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "hodei", "config.toml"), nil
}

// LoadConfigFile reads the file of contexts; one that is not there is empty. An unknown key is an error.
func LoadConfigFile() (*ConfigFile, error) {
	path, err := ConfigPath()
	if err != nil {
		return nil, err
	}
	f := &ConfigFile{path: path, Contexts: map[string]Config{}}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the contexts: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	decoder := toml.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(f); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("%s has a key that is not known:\n%s", path, strict.String())
		}
		return nil, fmt.Errorf("%s is not valid TOML: %w", path, err)
	}
	if f.Contexts == nil {
		f.Contexts = map[string]Config{}
	}
	return f, nil
}

// Save writes the file, readable by its owner only.
func (f *ConfigFile) Save() error {
	data, err := toml.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fmt.Errorf("making the folder for settings: %w", err)
	}
	temp := f.path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("writing the contexts: %w", err)
	}
	return os.Rename(temp, f.path)
}

// ErrNoServer says that nothing names a server.
var ErrNoServer = errors.New("no server is configured; start one with `hodei dev`, or set HODEI_URL, HODEI_CA, HODEI_CERT and HODEI_KEY")

// ResolveConfig returns how to reach the server: the fields of override win, then HODEI_URL, HODEI_CA, HODEI_CERT, HODEI_KEY
// and HODEI_NAMESPACE, then the context that override or HODEI_CONTEXT names, then the current one. ErrNoServer when none of
// them names a server.
func ResolveConfig(override Config) (Config, error) {
	file, err := LoadConfigFile()
	if err != nil {
		return Config{}, err
	}
	name := first(override.Context, os.Getenv("HODEI_CONTEXT"), file.Current)
	base, ok := file.Contexts[name]
	if !ok && name != "" {
		return Config{}, fmt.Errorf("there is no context %q in %s; `hodei context list` shows those that are there", name, file.path)
	}
	base.Context = name
	if url := first(override.URL, os.Getenv("HODEI_URL")); url != "" && url != base.URL {
		base.URL = url
		base.Context = ""
	}
	base.CA = first(override.CA, os.Getenv("HODEI_CA"), base.CA)
	base.Cert = first(override.Cert, os.Getenv("HODEI_CERT"), base.Cert)
	base.Key = first(override.Key, os.Getenv("HODEI_KEY"), base.Key)
	base.Namespace = first(override.Namespace, os.Getenv("HODEI_NAMESPACE"), base.Namespace)
	if base.URL == "" {
		return base, ErrNoServer
	}
	return base, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
