package identity

// Administrator is the user that the first boot makes.
const Administrator = "admin"

// agentPermission is the only thing that agents may do, and that nobody else may.
const agentPermission = "agent.connect"

// Allows decides whether a principal holds a permission ("jobs.submit"). What is not granted is denied.
func Allows(p Principal, permission string) bool {
	switch p.Kind {
	case Agent:
		return permission == agentPermission
	case User:
		return p.Name == Administrator && permission != "" && permission != agentPermission
	default:
		return false
	}
}
