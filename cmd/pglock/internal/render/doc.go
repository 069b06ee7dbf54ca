// Package render shows locks and sessions to people and to programs. Every view of the
// command uses its words, colors and formats, so that a session is described in the same
// way wherever it is shown.
//
//   - Words: SessionName, Session and Holders describe sessions. Duration, Time, Plural,
//     Quote and Cut format values.
//   - Views: a Table has a row for each lock or pair. A Forest shows who waits for whom.
//     An Ending shows what happened to sessions that were canceled or terminated. A
//     Diagnosis shows the findings of package doctor.
//   - The JSON contract of docs/command.md: Object, WriteObjects and WriteJSON.
//
// The package knows no command line and no terminal. Callers pass where to write, the
// width, and whether to use color. Text from elsewhere is made safe for a terminal; see
// package termtext.
package render
