// Package harness runs sharder the way a user does: it builds the binary, writes
// a configuration file, starts a process, talks to it over loopback and stops it
// with a signal. Whatever a test needs to know about the process (what it
// printed, how it exited) is kept and shown when the test fails.
//
// A test package that uses it hands its TestMain to Main, which removes the
// binaries that were built. Each binary is built at most once per test process,
// with the race detector if the tests run with it: a race inside sharder then
// fails the test that caused it.
package harness
