package hodei

// Option says something of a client that is being made.
type Option func(*settings)

type settings struct {
	config Config // wins over the environment and the contexts
	whole  bool   // neither of them is looked at
}

// WithConfig takes exactly these settings: neither variables nor contexts are looked at. ResolveConfig makes them.
func WithConfig(config Config) Option { return func(s *settings) { s.config, s.whole = config, true } }

// WithURL sets the address of the server, https://host:7443.
func WithURL(url string) Option { return func(s *settings) { s.config.URL = url } }

// WithCA sets the PEM file with the CA by which the server is known.
func WithCA(path string) Option { return func(s *settings) { s.config.CA = path } }

// WithCAPin sets the pin by which the server is known, as Config.CAPin.
func WithCAPin(pin string) Option { return func(s *settings) { s.config.CAPin = pin } }

// WithCertificate sets the PEM files of the client certificate and its key, which may be one file.
func WithCertificate(cert, key string) Option {
	return func(s *settings) { s.config.Cert, s.config.Key = cert, key }
}

// WithToken sets the secret of an API token.
func WithToken(token string) Option { return func(s *settings) { s.config.Token = token } }

// WithTokenFile sets the file with the secret of an API token.
func WithTokenFile(path string) Option { return func(s *settings) { s.config.TokenFile = path } }

// WithNamespace sets the namespace of what is submitted and listed without one.
func WithNamespace(name string) Option { return func(s *settings) { s.config.Namespace = name } }

// WithContext chooses a context of the file of contexts.
func WithContext(name string) Option { return func(s *settings) { s.config.Context = name } }

// resolve returns the settings of a client.
func resolve(options []Option) (Config, error) {
	var s settings
	for _, option := range options {
		option(&s)
	}
	if s.whole {
		return s.config, nil
	}
	return ResolveConfig(s.config)
}
