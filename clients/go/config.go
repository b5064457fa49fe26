package hodei

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// Config says how to reach a server, and as whom. CA, Cert and Key are paths of PEM files; Cert and Key may be one file.
type Config struct {
	URL       string `toml:"url" json:"url" yaml:"url"`
	CA        string `toml:"ca,omitempty" json:"ca,omitempty" yaml:"ca,omitempty"`
	Cert      string `toml:"cert,omitempty" json:"cert,omitempty" yaml:"cert,omitempty"`
	Key       string `toml:"key,omitempty" json:"key,omitempty" yaml:"key,omitempty"`
	Namespace string `toml:"namespace,omitempty" json:"namespace,omitempty" yaml:"namespace,omitempty"`
	// CAPin is "sha256:" and the hash of a public key: the server is known by a CA with this key, and CA is not looked at.
	CAPin string `toml:"ca_pin,omitempty" json:"ca_pin,omitempty" yaml:"ca_pin,omitempty"`
	// Token is the secret of an API token, or an access token, which is used as it is. It is never written anywhere.
	Token string `toml:"-" json:"-" yaml:"-"`
	// TokenFile is a file with what Token would be. It is read again whenever a fresh access token is needed.
	TokenFile string `toml:"token_file,omitempty" json:"token_file,omitempty" yaml:"token_file,omitempty"`
	// Login is the id of the login that the certificate belongs to, which renews it until RenewableUntil, in RFC 3339.
	Login          string `toml:"login,omitempty" json:"login,omitempty" yaml:"login,omitempty"`
	RenewableUntil string `toml:"renewable_until,omitempty" json:"renewable_until,omitempty" yaml:"renewable_until,omitempty"`
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
	return replaceFile(f.path, data)
}

// ErrNoServer says that nothing names a server.
var ErrNoServer = errors.New("no server is configured; start one with `hodei dev`, log in to one with `hodei login`, " +
	"or set HODEI_URL and HODEI_CA, and HODEI_TOKEN, or HODEI_CERT and HODEI_KEY")

// ResolveConfig returns how to reach the server: the fields of override win, then HODEI_URL, HODEI_CA, HODEI_CA_PIN, HODEI_CERT,
// HODEI_KEY, HODEI_TOKEN, HODEI_TOKEN_FILE and HODEI_NAMESPACE, then the context that override or HODEI_CONTEXT names, then the
// current one. A token replaces a certificate that comes from further away, and the other way round. ErrNoServer when none of them
// names a server.
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
	for _, nearer := range []Config{environment(), override} {
		base.identify(nearer)
	}
	if base.URL == "" {
		return base, ErrNoServer
	}
	return base, nil
}

// environment is what variables say of who is who.
func environment() Config {
	return Config{
		CA: os.Getenv("HODEI_CA"), CAPin: os.Getenv("HODEI_CA_PIN"), Cert: os.Getenv("HODEI_CERT"), Key: os.Getenv("HODEI_KEY"),
		Token: os.Getenv("HODEI_TOKEN"), TokenFile: os.Getenv("HODEI_TOKEN_FILE"), Namespace: os.Getenv("HODEI_NAMESPACE"),
	}
}

// identify takes over what a nearer place says. How the server is known, and how the caller is, are each said by one place: a
// token for one user beside the certificate of another would leave open who calls.
func (c *Config) identify(nearer Config) {
	if nearer.CA != "" || nearer.CAPin != "" {
		c.CA, c.CAPin = nearer.CA, nearer.CAPin
	}
	token, certificate := nearer.Token != "" || nearer.TokenFile != "", nearer.Cert != "" || nearer.Key != ""
	if token || certificate {
		c.Login, c.RenewableUntil = "", ""
		c.Token, c.TokenFile = nearer.Token, nearer.TokenFile
	}
	if certificate {
		c.Cert, c.Key = first(nearer.Cert, c.Cert), first(nearer.Key, c.Key)
	} else if token {
		c.Cert, c.Key = "", ""
	}
	c.Namespace = first(nearer.Namespace, c.Namespace)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
