// Command hello prints a line. It shows how long a Go program takes to start and to exit.
package main

import "fmt"

func main() { fmt.Println("hello") }
