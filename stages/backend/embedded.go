package backend

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// readyTimeout bounds the election of the only member by itself, which comes
	// after everything that grows with the data.
	readyTimeout = time.Minute
	loopback     = "127.0.0.1:0"
	lockName     = "sharder.lock"
	logName      = "etcd.log"
)

// EmbeddedOptions describes an etcd inside this process.
type EmbeddedOptions struct {
	// Name is the member's name, and the shard's in errors.
	Name string
	// Dir holds the data, the log and a lock file. It is made if it isn't there.
	Dir string
	// Listen is the client address, host:port; "" is a free port on the loopback.
	Listen string
	// MaxRequestBytes is etcd's limit of that name; 0 for etcd's own (1.5 MiB).
	MaxRequestBytes uint
	// MaxTxnOps is etcd's limit of that name; 0 for etcd's own (128).
	MaxTxnOps uint
	// Logger hears of start and stop. etcd's own messages go to the file etcd.log
	// in Dir, warnings and worse; what ends the process goes to stderr as well.
	Logger *slog.Logger
}

// Embedded is a real etcd of one member, in this process, with its data on disk and
// every write synced. Whoever started it closes it.
type Embedded struct {
	etcd    *embed.Etcd
	log     *os.File
	lock    *fileutil.LockedFile
	logger  *slog.Logger
	name    string
	address string
	once    sync.Once
}

// StartEmbedded starts an etcd and returns once it serves. A data directory that
// another process uses is an error at once.
func StartEmbedded(o EmbeddedOptions) (_ *Embedded, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		return nil, fmt.Errorf("sharder: embedded etcd %s: no data directory", o.Name)
	}
	e := &Embedded{logger: o.Logger, name: o.Name}
	defer func() {
		if err != nil {
			err = fmt.Errorf("sharder: embedded etcd %s: %w", o.Name, errors.Join(err, e.release()))
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if e.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if e.log, err = openLog(o.Dir); err != nil {
		return nil, err
	}
	conf, err := o.config(e.log)
	if err != nil {
		return nil, err
	}
	if e.etcd, err = embed.StartEtcd(conf); err != nil {
		return nil, err
	}
	if err := e.awaitReady(); err != nil {
		return nil, err
	}
	e.address = e.etcd.Clients[0].Addr().String()
	o.Logger.Info("embedded etcd serves", "name", o.Name, "dir", o.Dir, "endpoint", e.address)
	return e, nil
}

// config is etcd's configuration: one member, durable, quiet, without the HTTP
// gateway, its peer port on the loopback.
func (o EmbeddedOptions) config(log *os.File) (*embed.Config, error) {
	listen := o.Listen
	if listen == "" {
		listen = loopback
	}
	if _, _, err := net.SplitHostPort(listen); err != nil {
		return nil, fmt.Errorf("listen address %q: %w", listen, err)
	}
	conf := embed.NewConfig()
	conf.Dir = o.Dir
	if o.Name != "" {
		conf.Name = o.Name
	}
	conf.ListenClientUrls = []url.URL{{Scheme: "http", Host: listen}}
	conf.AdvertiseClientUrls = conf.ListenClientUrls
	conf.ListenPeerUrls = []url.URL{{Scheme: "http", Host: loopback}}
	conf.AdvertisePeerUrls = conf.ListenPeerUrls
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)
	conf.EnableGRPCGateway = false
	if o.MaxRequestBytes > 0 {
		conf.MaxRequestBytes = o.MaxRequestBytes
	}
	if o.MaxTxnOps > 0 {
		conf.MaxTxnOps = o.MaxTxnOps
	}
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger(log))
	return conf, nil
}

// awaitReady waits until the member has elected itself.
func (e *Embedded) awaitReady() error {
	timer := time.NewTimer(readyTimeout)
	defer timer.Stop()
	select {
	case <-e.etcd.Server.ReadyNotify():
		return nil
	case err := <-e.etcd.Err():
		return err
	case <-e.etcd.Server.StopNotify():
		return errors.New("it stopped while starting; its log says why: " + e.log.Name())
	case <-timer.C:
		return fmt.Errorf("not ready within %v; its log may say why: %s", readyTimeout, e.log.Name())
	}
}

// Endpoint is the client address, host:port.
func (e *Embedded) Endpoint() string { return e.address }

// Err gives an error when a listener of the running etcd fails. The etcd is of no
// use after that and should be closed.
func (e *Embedded) Err() <-chan error { return e.etcd.Err() }

// Close stops the etcd in order: requests under way are finished, everything is on
// disk, and the directory is free when it returns. Closing twice is harmless.
func (e *Embedded) Close() error {
	err := e.release()
	e.logger.Info("embedded etcd stopped", "name", e.name)
	return err
}

// release gives back whatever was taken, in reverse order.
func (e *Embedded) release() error {
	var errs []error
	e.once.Do(func() {
		if e.etcd != nil {
			e.etcd.Close()
		}
		if e.log != nil {
			errs = append(errs, e.log.Close())
		}
		if e.lock != nil {
			errs = append(errs, e.lock.Close())
		}
	})
	return errors.Join(errs...)
}

// lockDir takes the directory for this process, and makes sure that no plain etcd
// runs on it: etcd would wait for the other one's end without a word.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	lock, err := fileutil.TryLockFile(filepath.Join(dir, lockName), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("its data directory is in use; is another sharder running on %s?", dir)
	}
	if err != nil {
		return nil, err
	}
	// A running etcd holds a lock on the newest file of its write-ahead log.
	logs, _ := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	for _, name := range logs {
		wal, err := fileutil.TryLockFile(name, os.O_RDWR, 0o600)
		if err == nil {
			err = wal.Close()
		}
		if err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("its data directory is in use; is an etcd running on %s? (%s: %w)", dir, name, err)
		}
	}
	return lock, nil
}
