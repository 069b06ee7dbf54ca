// Package top is the live view of pglock top: who blocks whom, and what ends that. It is
// the only package that imports a terminal library.
//
//   - database.go reads a database in the background and ends sessions of it. Each reading
//     is a picture.
//   - model.go has the state of the program and what each message does to it. keys.go does
//     that for keys, ending.go for the box that asks before a session is ended.
//   - rows.go makes the rows of each view from a picture, and history.go those of the last
//     15 minutes.
//   - view.go draws the state. It draws only the rows that fit the screen.
//
// The package has no SQL: package inspect reads and signals. The words, too, are not its
// own: package render describes sessions in all views of the command.
//
// Two rules hold everywhere. A selection is a session, identified by its PID and when it
// began, and never the place of a row. And nothing is ended that was not compared again in
// the statement that signals.
package top
