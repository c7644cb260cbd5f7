package importer

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cheggaaa/pb/v3"
)

// How often the display changes: a bar, and lines.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
)

// Bar draws the progress on a terminal until ctx ends: one bar per phase, with rate and
// time left.
func Bar(ctx context.Context, p *Progress, w io.Writer) {
	d := &drawing{w: w}
	every(ctx, barEvery, func() { d.draw(p.Now()) })
	d.draw(p.Now())
	d.end()
}

// drawing is the bar of the present phase.
type drawing struct {
	w   io.Writer
	bar *pb.ProgressBar
	at  Step
}

// draw shows a step. The first of another phase begins a new line; the phase before it
// is over, so its bar is full.
func (d *drawing) draw(s Step) {
	if s.Phase != d.at.Phase || !s.Began.Equal(d.at.Began) {
		if d.bar != nil {
			d.bar.SetCurrent(d.at.Total)
			d.end()
		}
		d.bar = newBar(s, d.w)
	}
	if d.at = s; d.bar != nil {
		d.bar.Set("bytes", Bytes(s.Bytes)).SetCurrent(s.Keys).Write()
	}
}

// end leaves the bar on its line.
func (d *drawing) end() {
	if d.bar != nil {
		d.bar.Write().Finish()
		fmt.Fprintln(d.w)
	}
}

// newBar makes the bar of a phase. It draws when it is told to and starts nothing.
func newBar(s Step, w io.Writer) *pb.ProgressBar {
	const look = `{{string . "phase"}} {{counters . }} keys {{bar . }} {{percent . }} {{string . "bytes"}} {{speed . "%s keys/s" "? keys/s"}} {{rtime . "%s left" "%s" "? left"}}`
	bar := pb.New64(s.Total).SetTemplateString(look).SetWriter(w)
	bar.Set("phase", fmt.Sprintf("%-9s", s.Phase)).Set(pb.Static, true).Set(pb.ReturnSymbol, "\r")
	if bar.Start(); bar.Width() <= 0 { // a terminal that does not know its size
		bar.SetWidth(80)
	}
	return bar
}

// Lines writes the progress as a line every few seconds until ctx ends.
func Lines(ctx context.Context, p *Progress, w io.Writer) {
	every(ctx, lineEvery, func() {
		if s := p.Now(); s.Phase != "" {
			fmt.Fprintln(w, s.line(time.Now()))
		}
	})
}

// line is a step in words.
func (s Step) line(now time.Time) string {
	took := now.Sub(s.Began)
	text := fmt.Sprintf("%s: %d of %d keys, %s", s.Phase, s.Keys, s.Total, Bytes(s.Bytes))
	if s.Keys == 0 || took < time.Second {
		return text
	}
	rate := float64(s.Keys) / took.Seconds()
	left := time.Duration(float64(max(0, s.Total-s.Keys)) / rate * float64(time.Second))
	return fmt.Sprintf("%s, %.0f keys/s, %s left", text, rate, left.Round(time.Second))
}

// every calls f from time to time until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}
