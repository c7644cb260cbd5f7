package importer

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestWhatIsTheImportsOwn(t *testing.T) {
	t.Parallel()
	at := func(value string, mod int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte("k"), Value: []byte(value), ModRevision: mod}
	}
	leased := at("v", 5)
	leased.Lease = 1
	// The source was copied at 10 and is copied at 20; the import's own writes in the
	// target go up to 100.
	first := judge{revision: 10, base: 10, written: 100}
	further := judge{revision: 20, base: 10, written: 100}
	finished := judge{revision: 20, base: 10, written: 100, complete: true}
	killed := judge{revision: 20, base: 10, written: 100, window: span{key: []byte("k"), end: []byte("k")}}
	over := judge{revision: 10, base: 10, overwrite: true}
	for name, c := range map[string]struct {
		j    judge
		p    pair
		want verdict
	}{
		"equal":                                  {first, pair{at("v", 5), at("v", 200)}, same},
		"missing":                                {first, pair{at("v", 5), nil}, put},
		"differs, first round":                   {first, pair{at("v", 5), at("x", 50)}, conflict},
		"only in the target, first round":        {first, pair{nil, at("x", 50)}, conflict},
		"another lease":                          {first, pair{leased, at("v", 50)}, conflict},
		"changed in the source":                  {further, pair{at("w", 15), at("v", 50)}, put},
		"changed in the target":                  {further, pair{at("v", 5), at("x", 50)}, conflict},
		"changed in both":                        {further, pair{at("w", 15), at("x", 101)}, conflict},
		"changed in the source, maybe copied":    {killed, pair{at("w", 15), at("v", 101)}, put},
		"deleted in the source":                  {further, pair{nil, at("v", 50)}, remove},
		"deleted in the source, new in target":   {further, pair{nil, at("x", 101)}, conflict},
		"deleted in the source, maybe copied":    {killed, pair{nil, at("v", 101)}, remove},
		"missing, not yet copied":                {further, pair{at("v", 5), nil}, put},
		"missing, was copied":                    {finished, pair{at("v", 5), nil}, conflict},
		"missing, changed since it was copied":   {finished, pair{at("w", 15), nil}, put},
		"missing, was copied with a lease":       {finished, pair{leased, nil}, put},
		"overwrite: differs":                     {over, pair{at("v", 5), at("x", 500)}, put},
		"overwrite: only in the target":          {over, pair{nil, at("x", 500)}, remove},
		"overwrite: equal":                       {over, pair{at("v", 5), at("v", 500)}, same},
		"the window ends before the key":         {judge{revision: 20, base: 10, window: span{key: []byte("a"), end: []byte("j")}}, pair{nil, at("v", 101)}, conflict},
		"the window begins behind the key":       {judge{revision: 20, base: 10, window: span{key: []byte("l"), end: []byte("z")}}, pair{nil, at("v", 101)}, conflict},
		"the window begins where the range does": {judge{revision: 20, base: 10, window: span{end: []byte("z")}}, pair{nil, at("v", 101)}, remove},
	} {
		if got := c.j.judge(c.p); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// breaks fails every Range after the first n.
type breaks struct {
	pb.KVClient
	n int
}

func (b *breaks) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	if b.n--; b.n < 0 {
		return nil, status.Error(codes.Internal, "broken")
	}
	return b.KVClient.Range(ctx, in, opts...)
}

// A source that can't be read to its end must not look like one without the rest of the
// keys: they would be deleted.
func TestAScanThatBreaksOffIsNoEnd(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	for i := range 4 * firstPage {
		if _, err := e.Client().Put(t.Context(), strings.Repeat("k", 1+i), ""); err != nil {
			t.Fatal(err)
		}
	}
	whole := scan{kv: pb.NewKVClient(etcdtest.Conn(t, e.Endpoint)), span: all, side: "side", retry: retry{call: time.Second}}
	for n := range 2 {
		broken := whole
		broken.kv = &breaks{KVClient: whole.kv, n: n}
		for name, sides := range map[string][2]scan{"source": {broken, whole}, "target": {whole, broken}} {
			seen := 0
			err := join(t.Context(), sides[0], sides[1], func(p pair) error {
				if p.src == nil || p.dst == nil {
					t.Fatalf("%s broken after %d pages: %q is missing on one side", name, n, p.key())
				}
				seen++
				return nil
			})
			if status.Code(errors.Unwrap(err)) != codes.Internal || seen != n*firstPage {
				t.Errorf("%s broken after %d pages: %d keys, %v", name, n, seen, err)
			}
			broken.kv.(*breaks).n = n
		}
	}
	seen := 0
	if err := join(t.Context(), whole, whole, func(pair) error { seen++; return nil }); err != nil || seen != 4*firstPage {
		t.Errorf("%d keys, %v", seen, err)
	}
}

func TestTheRangeOfAPrefix(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]span{
		"":         all,
		"a":        {[]byte("a"), []byte("b")},
		"a\xff":    {[]byte("a\xff"), []byte("b")},
		"\xff\xff": {[]byte("\xff\xff"), []byte{0}},
	} {
		if got := prefixed([]byte(prefix)); !bytes.Equal(got.key, want.key) || !bytes.Equal(got.end, want.end) {
			t.Errorf("%q: %q", prefix, got)
		}
	}
}

func TestPagesAimAtTheirSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit int64
		got   int
		want  int64
	}{
		{128, 0, 256}, {128, 1 << 20, 256}, {128, 128 << 20, 4}, {1, 100 << 20, 1}, {8000, 1 << 10, maxPage}, {1000, pageBytes, 1000},
	} {
		if got := nextLimit(c.limit, c.got); got != c.want {
			t.Errorf("%d keys of %d bytes: %d, want %d", c.limit, c.got, got, c.want)
		}
	}
}

func TestProgressInWords(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := Step{Phase: "copying", Began: now.Add(-10 * time.Second), Keys: 1000, Total: 4000, Bytes: 3 << 20}
	if got, want := s.line(now), "copying: 1000 of 4000 keys, 3.0 MiB, 100 keys/s, 30s left"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.Keys = 0
	if got, want := s.line(now), "copying: 0 of 4000 keys, 3.0 MiB"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheBarOfEachPhaseStaysOnItsLine(t *testing.T) {
	t.Parallel()
	p := &Progress{}
	p.begin("copying", 0, 400)
	var out bytes.Buffer
	d := &drawing{w: &out}
	p.add(100, 1<<20)
	d.draw(p.Now())
	p.begin("verifying", 0, 400)
	d.draw(p.Now())
	d.end()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	drawn := strings.Split(lines[0], "\r")
	if !strings.Contains(drawn[0], "copying   100 / 400 keys") || !strings.Contains(drawn[0], "25.00% 1.0 MiB") || !strings.Contains(drawn[len(drawn)-1], "400 / 400 keys") {
		t.Errorf("%q", drawn)
	}
	if !strings.Contains(lines[1], "verifying 0 / 400 keys") {
		t.Errorf("%q", lines[1])
	}
}

func TestTheReportSaysWhatWasNotBrought(t *testing.T) {
	t.Parallel()
	r := Report{
		Source: "cafe", Revision: 900, Start: 4, Puts: 10, Bytes: 2048, Began: time.Now(),
		Verified: true, VerifiedAt: 40, Keys: 9, KeyBytes: 2000, Leases: 2, LeasedKeys: 3, EmptyLeases: 4, EndedLeases: 1, EndedKeys: 5,
		Differences: 2, Listed: []Difference{{Key: []byte("\x01k"), How: "not in the target"}},
	}
	var b strings.Builder
	r.Write(&b)
	for _, want := range []string{
		"cluster cafe at revision 900", "10 puts (2.0 KiB)", "9 keys (2.0 KiB)", "2 with 3 keys", "4 leases without keys",
		"5 keys of 1 leases that have ended", "2 differences", `"\x01k": not in the target`, "and 1 more",
		"create and mod revisions, versions, and the history", "first_revision = 901",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if r.Start = 900; r.LowRevisions() {
		t.Error("revisions that go on are called low")
	}
}
