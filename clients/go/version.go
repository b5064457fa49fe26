package hodei

// Version is the version of this client. A server of another major version refuses it.
const Version = "0.1.0"

// clientHeader names the client to the server.
const clientHeader = "Hodei-Client"

var clientName = []string{"go/" + Version}
