package main

// selfPath is this program as it runs, even if its file was replaced, or lies where
// the user may not look.
func selfPath() (string, error) { return "/proc/self/exe", nil }
