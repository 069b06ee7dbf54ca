// Package doctest keeps the guides true: its tests compile and run every block of
// code in README.md and docs/*.md, follow every link of every page, and walk the
// README from top to bottom as a newcomer would.
//
// # Blocks
//
// What is done with a block depends on its language:
//
//   - go: a fragment becomes the body of a function, which is compiled and run
//     against a database of its own. The names that it takes for granted (pool,
//     locker, tx, ...) are the methods of World in package blocks, whatever their
//     case; what it declares need not be used. Every err that the next statement
//     does not look at must be nil. A block that begins with "package" is a program:
//     it is built, and run with DATABASE_URL.
//   - sh: run by bash, on a terminal, with the built pglock, against a server on which
//     a scene plays. It must end with exit code 0. What is asked is answered "y".
//   - console: each line that begins with "$ " is run likewise, and shows what stands
//     below it. Numbers of processes and times may differ.
//   - yaml: a config file, unless it is marked as another thing; json, sql, ini: read,
//     or run.
//   - text: must be marked with what it is.
//
// A comment before a block says what is special about it:
//
//	<!-- doctest: tx=SQLTx -->           in Go, tx is what World.SQLTx makes
//	<!-- doctest: compile -->            compiled, not run; what follows is the reason
//	<!-- doctest: from FILE -->          it stands in a file that is tested by itself
//	<!-- doctest: exit 75 -->            the exit code
//	<!-- doctest: scene reports -->      another scene
//	<!-- doctest: output pglock tree --> this text is what the command prints
//	<!-- doctest: usage -->              this text is a synopsis: the flags are checked
//	<!-- doctest: shape: ... -->         not run: what follows is the reason
//	<!-- doctest: manifest -->           YAML of another program's
//	<!-- doctest: newcomer -->           run by TestNewcomer (scripts/newcomer)
//
// Several are parted by semicolons.
package doctest
