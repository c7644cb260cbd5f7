// Package conf is sharder's configuration: one TOML file, read whole and checked
// whole before anything is started.
//
// [Load] reads a file, [Parse] a text in memory, [Default] gives what holds when
// a key is left out. A configuration that came out of Load or Parse is valid:
// nothing that uses it has to check a bound or look up a name again.
//
// # What can be wrong, and how it is told
//
// Unknown keys, values of the wrong kind, values out of bounds and values that
// contradict each other are all found in one go and come back as one [Errors],
// in the order of the file:
//
//	shards.toml:3: drain_timeout: "10" is not a duration; write a number with its unit, such as "10s"
//	shards.toml:9: shards.a.endpoint: no such key; did you mean "endpoints"?
//
// Only an error of syntax comes alone, since behind it nothing can be trusted; it
// shows the line with a caret under the place.
//
// # Paths
//
// Relative paths (data_dir, the files of tls, password_file) are relative to the
// directory sharder is run from, as for any program of the command line, not to
// the directory of the configuration file. They are kept as they are written;
// whoever opens them reports what is wrong with the files.
//
// # Order
//
// With the table [order] all shards have one revision ([Order]), without it each has
// its own. Shards are numbered by their place in the file, and the numbers are written
// down when a deployment begins: with [order] the order of the tables must stay.
//
// # Routes
//
// A line of [routes] says where a range of keys begins; the range goes up to the
// next line. So a table with the line "" can have no gap and no overlap. See
// [Route] for what a line with hash holds.
package conf
