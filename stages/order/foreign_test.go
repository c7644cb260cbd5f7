package order_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages/order"
)

// A sharder with other routes would put keys where they don't belong. It carries on what no
// other has opened, and no other what it has.
func TestBatchesAreCarriedOnUnderTheRoutesThatTheyWereOpenedWith(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepFence)
	s := r.sharder(b.options)
	foreign := r.sharder(func(o *order.Options) { o.Fingerprint = "that of another file" })
	resp, err := r.halted(s, b, puts("1", "a", "b"), func() {
		// It has other routes, and is as patient with the batch as it takes to see that.
		for st, _ := foreign.Status(); st.Takeovers == 0; st, _ = foreign.Status() {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
	})
	if err != nil || resp.Header.Revision != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	_, err = foreign.txn(r.ctx(), puts("2", "a", "b"))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "other routes") {
		t.Errorf("a sharder with other routes is told: %v", err)
	}
	r.finished(s)
	if got, want := r.Range(s, "a", "z"), "a=1@2/2 b=1@2/2 at 2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.clean()
}

// What a sharder with other routes has opened, and left when it died, keeps nobody for long.
func TestABatchOfOtherRoutesIsRolledBackInTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepOpen)
	foreign := r.sharder(func(o *order.Options) {
		b.options(o)
		o.Fingerprint = "that of another file"
	})
	_, err := r.halted(foreign, b, puts("1", "a", "b"), foreign.end)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "outcome unknown") {
		t.Errorf("its client is told: %v", err)
	}
	s := r.sharder(func(o *order.Options) { o.QueueTimeout = 500 * time.Millisecond })
	r.finished(s)
	if got, want := r.Range(s, "a", "z"), "at 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if next := r.doTxn(s, puts("2", "a", "b")).Header.Revision; next != 2 {
		t.Errorf("the next one has revision %d", next)
	}
}
