//go:build !linux

package agent

// memoryDir returns a folder whose files are in memory, empty when there is none.
func memoryDir() string { return "" }
