package main

// blocks are the blocks by name. This file is replaced while doctest builds.
func blocks() map[string]func(*World) error { return nil }
