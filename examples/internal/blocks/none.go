package main

// blocks returns the blocks by name. Package doctest replaces this file when it builds.
func blocks() map[string]func(*World) error { return nil }
