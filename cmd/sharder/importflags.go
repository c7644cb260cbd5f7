package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/importer"
)

// parse reads the flags and the configuration.
func (im *importing) parse(args []string) error {
	im.from = conf.DefaultShard("--from")
	flags := flag.NewFlagSet("sharder import", flag.ContinueOnError)
	flags.SetOutput(im.stderr)
	im.sourceFlags(flags)
	flags.StringVar(&im.file, "conf", "conf/shards.toml", "the configuration `file` of the deployment that gets the keys")
	flags.StringVar(&im.prefix, "prefix", "", "bring, compare and delete only keys that begin with this `text`")
	flags.BoolVar(&im.dryRun, "dry-run", false, "say what would be done, and write no key")
	flags.BoolVar(&im.verifyOnly, "verify-only", false, "compare, and write no key")
	flags.BoolVar(&im.options.Overwrite, "overwrite", false, "make the target exactly what the source is: overwrite and delete what others wrote there")
	flags.BoolVar(&im.options.Restart, "restart", false, "forget how far an earlier import has come, also one from another source")
	flags.IntVar(&im.options.Workers, "workers", 128, "`how many` writes are under way at once")
	flags.BoolVar(&im.verbose, "verbose", false, "log what is normal too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err := im.understand(); err != nil {
		return err
	}
	return im.configure()
}

// sourceFlags are those that say how the source is reached.
func (im *importing) sourceFlags(flags *flag.FlagSet) {
	flags.StringVar(&im.endpoints, "from", "", "the `endpoints` of the etcd whose keys are brought, separated by commas")
	flags.StringVar(&im.from.TLS.CA, "from-ca", "", "verify the source with the certificates in this `file`")
	flags.StringVar(&im.from.TLS.Cert, "from-cert", "", "our certificate for the source, a `file`")
	flags.StringVar(&im.from.TLS.Key, "from-key", "", "the key of that certificate, a `file`")
	flags.StringVar(&im.from.Username, "from-user", "", "our `name` at the source")
	flags.StringVar(&im.from.PasswordFile, "from-password-file", "", "the `file` with the password for it")
}

// understand checks what the flags mean together.
func (im *importing) understand() error {
	switch {
	case im.endpoints == "":
		return errors.New("which etcd? Name its endpoints with --from")
	case im.dryRun && im.verifyOnly:
		return errors.New("--dry-run and --verify-only exclude each other")
	case im.options.Workers < 1:
		return errors.New("--workers is at least 1")
	case (im.from.Username == "") != (im.from.PasswordFile == ""):
		return errors.New("--from-user and --from-password-file go together")
	case im.dryRun:
		im.options.Mode = importer.DryRun
	case im.verifyOnly:
		im.options.Mode = importer.VerifyOnly
	}
	im.from.Endpoints = strings.Split(im.endpoints, ",")
	im.options.Prefix = []byte(im.prefix)
	return nil
}

// configure reads the file. Only a deployment with one order can be imported into: the
// record of an import is kept in the order cluster.
func (im *importing) configure() (err error) {
	if im.cfg, err = conf.Load(im.file); err != nil {
		return err
	}
	if im.cfg.Order == nil {
		return fmt.Errorf("%s has no [order]: keys are imported into a deployment with one revision; etcdctl make-mirror copies into others", im.file)
	}
	for _, s := range append([]conf.Shard{im.cfg.Order.Shard}, im.cfg.Shards...) {
		for _, e := range s.Endpoints {
			if slices.ContainsFunc(im.from.Endpoints, func(f string) bool { return bare(f) == bare(e) }) {
				return fmt.Errorf("--from names %s, which is %s in %s: a cluster that becomes a shard keeps its keys and is not imported, see docs/migration.md", e, s.Name, im.file)
			}
		}
	}
	return nil
}

// bare is an endpoint without its scheme.
func bare(endpoint string) string {
	if _, rest, ok := strings.Cut(endpoint, "://"); ok {
		return rest
	}
	return endpoint
}
