// Package doctest checks the guides. Its tests compile and run every block of code in
// README.md and docs/*.md, check the links on every page, and follow the README from
// top to bottom as a new user would.
//
// # Blocks
//
// A block is tested according to its language:
//
//   - go: a fragment becomes the body of a function, which is compiled and run
//     against its own database. Methods of World in package blocks provide the names
//     that it does not declare (pool, locker, tx, ...), ignoring case. Variables that it
//     declares need not be used. Every err that the next statement does not check
//     must be nil. A block that begins with "package" is a program: it is built, and
//     run with DATABASE_URL.
//   - sh: run by bash, on a terminal, with the built pglock, against a server with a
//     prepared scene. Its exit code must be 0. Questions are answered with "y".
//   - console: each line that begins with "$ " is run likewise, and must print the lines
//     below it. PIDs and times may differ.
//   - yaml: parsed as a config file, unless it is marked otherwise; json, sql, ini:
//     parsed or run.
//   - text: must have a mark.
//
// A comment before a block sets marks:
//
//	<!-- doctest: tx=SQLTx -->           in Go, World.SQLTx provides tx
//	<!-- doctest: compile: ... -->       compiled, not run; the reason follows
//	<!-- doctest: from FILE -->          an excerpt of a file that has its own tests
//	<!-- doctest: exit 75 -->            the exit code
//	<!-- doctest: scene reports -->      another scene
//	<!-- doctest: output pglock tree --> this text is the output of the command
//	<!-- doctest: usage -->              this text is a synopsis: the flags are checked
//	<!-- doctest: shape: ... -->         not run; the reason follows
//	<!-- doctest: manifest -->           YAML of another program
//	<!-- doctest: newcomer -->           run by TestNewcomer (scripts/newcomer)
//
// Semicolons separate several marks.
package doctest
