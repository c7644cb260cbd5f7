package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/sharder/sharder/conf"
)

// Commands that take the place of etcd's are written in scripts as those are: their help goes to
// stdout, and of flags with mistakes they say what is wrong, in etcd's words where it has some,
// and no more than that.

// parseEtcdFlags reads flags. Help goes to where the set writes.
func parseEtcdFlags(f *flag.FlagSet, args []string) error {
	out := f.Output()
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	f.SetOutput(out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printEtcdFlags(f, out)
		return err
	case err != nil:
		return fmt.Errorf("%w\n%s --help lists the flags", inEtcdsWords(f, err), f.Name())
	case f.Arg(0) == "true" || f.Arg(0) == "false":
		return fmt.Errorf("unexpected argument %q; a switch has its value behind a =, such as --debug=%s", f.Arg(0), f.Arg(0))
	case f.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return nil
}

// printEtcdFlags lists the flags, with etcd's two dashes.
func printEtcdFlags(f *flag.FlagSet, out io.Writer) {
	var list bytes.Buffer
	f.SetOutput(&list)
	f.PrintDefaults()
	f.SetOutput(out)
	fmt.Fprintf(out, "usage: %s [flags]\n\n%s", f.Name(), oneDash.ReplaceAll(list.Bytes(), []byte("  --")))
}

// What the library says of a flag.
var (
	oneDash      = regexp.MustCompile(`(?m)^  -`)
	unknownFlag  = regexp.MustCompile(`^flag provided but not defined: -(.+)$`)
	withoutValue = regexp.MustCompile(`^flag needs an argument: -(.+)$`)
	wrongValue   = regexp.MustCompile(`(?s)^invalid (?:boolean )?value (".*") for (?:flag )?-([^:]+): `)
)

// inEtcdsWords is what is wrong with a flag as etcd says it, and what to write.
func inEtcdsWords(f *flag.FlagSet, err error) error {
	text := err.Error()
	if m := unknownFlag.FindStringSubmatch(text); m != nil {
		var names []string
		f.VisitAll(func(x *flag.Flag) { names = append(names, x.Name) })
		if near := conf.Nearest(m[1], names); near != "" {
			return fmt.Errorf("unknown flag: --%s; did you mean --%s?", m[1], near)
		}
		return fmt.Errorf("unknown flag: --%s", m[1])
	}
	if m := withoutValue.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("flag needs an argument: --%s", m[1])
	}
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("invalid argument %s for \"--%s\" flag: %s", m[1], m[2], wanted(f.Lookup(m[2])))
	}
	return err
}

// wanted says what a value of a flag is.
func wanted(x *flag.Flag) string {
	if g, ok := x.Value.(flag.Getter); ok {
		switch g.Get().(type) {
		case time.Duration:
			return "want a time with its unit, such as 10s or 5m"
		case bool:
			return "want true or false"
		case int, uint:
			return "want a whole number"
		}
	}
	return "want another value"
}

// usage is what a command says that was called without its verb: to stdout if it was asked for.
func usage(args []string, text string, stdout, stderr io.Writer) int {
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
		fmt.Fprint(stdout, text)
		return 0
	}
	fmt.Fprint(stderr, text)
	return exitMisused
}
