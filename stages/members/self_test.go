package members

import (
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/peer"
)

func TestAClientIsToldTheAddressOnWhichItHasCome(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 2379}
	socket := &net.UnixAddr{Net: "unix", Name: filepath.Join("/run", "sharder.sock")}
	for _, c := range []struct {
		self Self
		at   net.Addr
		want string
	}{
		{Self{}, tcp, "http://10.0.0.7:2379"},
		{Self{Secure: true}, tcp, "https://10.0.0.7:2379"},
		{Self{}, socket, "unix:///run/sharder.sock"},
		{Self{Secure: true}, socket, "unixs:///run/sharder.sock"},
		{Self{Fallback: "me:2379"}, nil, "http://me:2379"},
		{Self{Secure: true, Scheme: func(net.Addr) string { return "http" }}, tcp, "http://10.0.0.7:2379"},
		{Self{Addresses: []string{"h:1"}, Secure: true}, tcp, "https://h:1"},
		{Self{Addresses: []string{"http://h:1"}, Secure: true}, tcp, "http://h:1"},
	} {
		ctx := t.Context()
		if c.at != nil {
			ctx = peer.NewContext(ctx, &peer.Peer{LocalAddr: c.at})
		}
		m := c.self.member(ctx)
		if len(m.ClientURLs) != 1 || m.ClientURLs[0] != c.want || m.ID == 0 {
			t.Errorf("%+v: %v", c, m)
		}
	}
}

func TestAnIDIsThatOfTheAddressesWhateverTheirOrderAndScheme(t *testing.T) {
	if idOf("a:1", "https://B:2") != idOf("b:2", "http://a:1") || idOf("a:1") == idOf("a:2") || idOf("a:1") == idOf("a:1", "b:2") {
		t.Error("ids are not those of the addresses")
	}
}
