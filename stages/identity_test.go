package stages_test

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/stages"
)

// What is found at the tap is forwarded as what is found later.
func TestWhatIsSentIsForwardedWhereverItIsFound(t *testing.T) {
	transport := metadata.Pairs(":authority", "a:1", "content-type", "application/grpc", "user-agent", "x", "grpc-accept-encoding", "gzip")
	for name, sent := range map[string]metadata.MD{
		"nothing": {}, "a token": metadata.Pairs("token", "t"),
		"much": metadata.Pairs("authorization", "a", "hasleader", "true", "x-twice", "1", "x-twice", "2"),
	} {
		header := metadata.Join(transport, sent)
		late := metadata.NewIncomingContext(t.Context(), header)
		early := stages.WithSent(late, header)
		for _, mine := range []metadata.MD{nil, metadata.Pairs("own", "o", "x-twice", "0")} {
			a, b := late, early
			if mine != nil {
				a, b = metadata.NewOutgoingContext(a, mine), metadata.NewOutgoingContext(b, mine)
			}
			x, _ := metadata.FromOutgoingContext(stages.ForwardMetadata(a))
			y, _ := metadata.FromOutgoingContext(stages.ForwardMetadata(b))
			if want := metadata.Join(mine, sent); fmt.Sprint(x) != fmt.Sprint(want) || fmt.Sprint(y) != fmt.Sprint(want) {
				t.Errorf("%s: %v and %v, not %v", name, x, y, want)
			}
		}
		if len(header) != len(transport)+len(sent) {
			t.Error(name, "the header has changed:", header)
		}
	}
}
