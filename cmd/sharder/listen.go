package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages/port"
)

// listen takes the addresses where clients connect and, last, the one for operators, nil if
// there is none. After an error none is taken.
func listen(cfg *conf.Config, log *slog.Logger) (clients []port.Listener, operators *port.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(clients)
		}
	}()
	secure, err := newServingTLS(cfg, log)
	if err != nil {
		return nil, nil, err
	}
	for i, c := range cfg.Listeners() {
		l, err := listenOn(c, secure)
		if err != nil {
			return clients, nil, fmt.Errorf("listen on %s: %w (another address is set with %s)", cfg.Listen[i], err, setWith(cfg, "listen-addr", "listen = [...]"))
		}
		clients = append(clients, l)
	}
	if c, ok := cfg.Operators(); ok {
		l, err := listenOn(c, secure)
		if err != nil {
			return clients, nil, fmt.Errorf("listen on %s: %w (another address is set with %s)", cfg.Metrics, err, setWith(cfg, "metrics-addr", `metrics = "..."`))
		}
		operators = &l
	}
	return clients, operators, nil
}

// setWith says where something is set, which flags of grpc-proxy and files call differently.
func setWith(cfg *conf.Config, name, line string) string {
	if cfg.File == proxyFile {
		return "--" + name
	}
	return line + " in " + cfg.File
}

// listenOn takes one address.
func listenOn(c conf.Listener, secure *tls.Config) (port.Listener, error) {
	l, err := port.Listen(c.Network, c.Address)
	if !c.TLS {
		secure = nil
	}
	return port.Listener{Listener: l, TLS: secure}, err
}

func closeAll(listeners []port.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// addresses are where clients connect, for people: host:port, or the URL of a socket.
func addresses(listeners []port.Listener) string {
	names := make([]string, len(listeners))
	for i, l := range listeners {
		if names[i] = l.Addr().String(); isSocket(l) {
			names[i] = urlOf(l)
		}
	}
	return strings.Join(names, ", ")
}

// urlOf is where a listener is.
func urlOf(l port.Listener) string {
	s := scheme(l.TLS != nil)
	if isSocket(l) {
		s = map[bool]string{false: "unix", true: "unixs"}[l.TLS != nil]
	}
	return s + "://" + l.Addr().String()
}

func isSocket(l port.Listener) bool {
	_, ok := l.Addr().(*net.UnixAddr)
	return ok
}

// scheme is what clients write before an address.
func scheme(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

// schemes tells the scheme of a connection by its local address: that of the listener it came
// to. An address that names a host goes before one that means all of the machine.
func schemes(listeners []conf.Listener) func(net.Addr) string {
	return func(local net.Addr) string {
		_, number, _ := net.SplitHostPort(local.String())
		secure, best := false, 0
		for _, l := range listeners {
			_, n, _ := net.SplitHostPort(l.Address)
			fits := 0
			switch {
			case l.Network != local.Network():
			case l.Address == local.String():
				fits = 3
			case n == number:
				fits = 2
			case n == "0":
				fits = 1
			}
			if fits > best {
				secure, best = l.TLS, fits
			}
		}
		return scheme(secure)
	}
}
