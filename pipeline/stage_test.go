package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sharder/sharder/pipeline"
)

// step is a stage that writes its name behind what it is given.
func step(name string) pipeline.Stage[string, string] {
	return func(_ context.Context, in string) (string, error) { return in + name, nil }
}

func TestChainsCallTheirStagesFirstToLast(t *testing.T) {
	a, b, c, d, e, f := step("a"), step("b"), step("c"), step("d"), step("e"), step("f")
	for want, chain := range map[string]pipeline.Stage[string, string]{
		"ab":     pipeline.Then(a, b),
		"abc":    pipeline.Chain3(a, b, c),
		"abcd":   pipeline.Chain4(a, b, c, d),
		"abcde":  pipeline.Chain5(a, b, c, d, e),
		"abcdef": pipeline.Chain6(a, b, c, d, e, f),
	} {
		if got, err := chain(t.Context(), ""); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

func TestAChainStopsAtTheFirstError(t *testing.T) {
	var ran []int
	at := func(i int, err error) pipeline.Stage[int, int] {
		return func(_ context.Context, in int) (int, error) {
			ran = append(ran, i)
			return in + 1, err
		}
	}
	got, err := pipeline.Chain4(at(0, nil), at(1, errSource), at(2, nil), at(3, nil))(t.Context(), 7)
	if err != errSource || got != 0 || fmt.Sprint(ran) != "[0 1]" {
		t.Errorf("got %d, %v after stages %v; want 0, the error itself, after 0 and 1", got, err, ran)
	}
}

func TestEveryStageIsGivenTheCallersContext(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "mine")
	look := func(ctx context.Context, in string) (string, error) {
		return in + fmt.Sprint(ctx.Value(key{})), nil
	}
	s := pipeline.Stage[string, string](look)
	chain := pipeline.Named("n", pipeline.Queue(pipeline.NewLink(1, 0), pipeline.Chain3(s, s, s)))
	if got, _ := chain(ctx, ""); got != "mineminemine" {
		t.Errorf("got %q", got)
	}
}

func TestTheFirstMiddlewareIsTheOutermost(t *testing.T) {
	around := func(name string) pipeline.Middleware[string, string] {
		return func(next pipeline.Stage[string, string]) pipeline.Stage[string, string] {
			return func(ctx context.Context, in string) (string, error) {
				out, err := next(ctx, in+name+"(")
				return out + ")" + name, err
			}
		}
	}
	got, err := pipeline.Wrap(step("x"), around("a"), around("b"), around("c"))(t.Context(), "")
	if want := "a(b(c(x)c)b)a"; got != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got, _ := pipeline.Wrap(step("x"))(t.Context(), ""); got != "x" {
		t.Errorf("without middleware: got %q, want the bare stage's x", got)
	}
}

// refused is an error that, like those of gRPC, says more than its text.
type refused struct{ code int }

func (refused) Error() string     { return "refused" }
func (r refused) GRPCStatus() int { return r.code }

func TestNamesNestAndTheCauseShowsThroughThem(t *testing.T) {
	fail := func(context.Context, int) (int, error) { return 0, refused{code: 7} }
	chain := pipeline.Named("range", pipeline.Named("call", pipeline.Stage[int, int](fail)))
	_, err := chain(t.Context(), 1)
	if err == nil || err.Error() != "range: call: refused" {
		t.Fatalf("got %v", err)
	}
	var outer *pipeline.StageError
	if !errors.As(err, &outer) || outer.Stage != "range" {
		t.Errorf("errors.As finds %v, want the outermost name", outer)
	}
	var status interface{ GRPCStatus() int }
	if !errors.As(err, &status) || status.GRPCStatus() != 7 {
		t.Error("the status of the cause is lost")
	}
	if !errors.Is(err, refused{code: 7}) {
		t.Error("errors.Is does not find the cause")
	}
}

func TestNamedLeavesResultsAlone(t *testing.T) {
	if got, err := pipeline.Named("n", step("x"))(t.Context(), ""); got != "x" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	boom := func(context.Context, int) (int, error) { panic("boom") }
	got := caught(func() { _, _ = pipeline.Named("n", pipeline.Stage[int, int](boom))(t.Context(), 1) })
	if got != "boom" {
		t.Errorf("panic became %v", got)
	}
}

func TestOurOwnErrorsSayWhoseTheyAre(t *testing.T) {
	if !strings.HasPrefix(pipeline.ErrFull.Error(), "sharder: ") {
		t.Errorf("%q", pipeline.ErrFull)
	}
}
