// Package pipeline is the runtime that chains are made of: stages that call each
// other, and streams whose parts are connected by bounded channels. It knows
// nothing of etcd, gRPC or sharding, and imports std and conc only.
//
// # Vocabulary
//
// A [Stage] turns one value into another: func(ctx, I) (O, error). A [Middleware]
// decorates a stage and keeps its type. [Then], [Chain3] to [Chain6] fuse stages into
// longer ones, [Wrap] puts middlewares around one, [Named] lets its errors say where
// they came from, [Scatter] makes a stage for one value a stage for many.
//
// A [Link] is a place that holds so many values and lets so many more wait; [Queue]
// puts it in front of a stage. Where there is no link, nothing waits.
//
// A [Source] writes to a channel, a [Flow] reads one and writes the next, a [Sink]
// reads. They never make channels or goroutines, and never close anything. The
// connectors do: [Through] (source and flow), [Run] (source and sink), [Merge] (many
// sources, in order of arrival) and [MergeSources] (many sources, sorted). [Lift] makes
// a stage a flow, [Coalesce] is the flow that makes groups of what is queued.
// [MergeSorted] merges slices. [Emit] is how a value is sent.
//
// # Two ways to connect
//
// A request goes through fused stages on its caller's own goroutine, and waits where
// the chain says Queue:
//
//	        ┌──── door ────┐                        ┌─ lane ─┐
//	caller ─┤ Queue(Chain( ├─► decode ─► route ─┬─► │ call   ├─┬─► gather ─► caller
//	        └──────────────┘                    ├─► │ call   ├─┤
//	                                            └─► │ call   ├─┘
//	                                     Scatter    └────────┘
//
// A stream is long-lived, and has a channel of stated capacity between its parts:
//
//	Source ═╗
//	Source ═╬═ Merge ══n══► Flow ══n══► Flow ══n══► Sink
//	Source ═╝
//	        ◄─────── a full channel holds back what is before it ───────
//
// The last part runs on the goroutine of the caller of Run, every other on one of its
// own. A slow sink fills the channel before it, then the flow before that waits,
// and so on up to the sources: values on their way are exactly the capacities, and one
// in each pair of hands (TestBackpressureReachesTheSourceExactly).
//
// # The four laws
//
// They are what a Source, a Flow or a Sink may rely on and what a connector has to do.
//
//  1. A source that has returned sends no more. So whoever runs it closes the channel,
//     once, and nobody else does. Where many write to one channel, Merge is the source
//     that returns last (TestMergeEndsWhenTheLastSourceHas).
//  2. Every send selects on the context (Emit). So cancelling a source always frees it,
//     read or unread (TestCancellationFreesAStreamThatNobodyReads).
//  3. When downstream returns, by an error, by a panic or because it had enough, the
//     connector cancels upstream with a cause of its own, waits for it, and only then
//     returns. Nothing outlives the call that started it
//     (TestRunWaitsForASourceThatIsSlowToStop).
//  4. Errors travel behind the values: first the channel is closed, then, when downstream
//     is done, the error is returned. Who reads gets all there is before the reason that
//     there is no more (TestAnErrorOfTheSourceComesBehindItsValues). So a closed channel
//     is an end and not yet a success.
//
// A panic reaches the caller after everybody has been waited for: unchanged where it
// happened on the caller's own goroutine, else as *panics.Recovered of conc, once,
// with the stack of the place. A panic in one request is thus that request's; whoever
// stands at the door recovers it. What Run returns in which case is said there.
//
// An author can break the second law by waiting for something that does not look at ctx.
// Then the connector waits too, for as long as that takes.
//
// # What is free and what costs
//
// Ratios of one run on two cores of a shared machine (the middle one of five); they
// say what to think about, not what to expect elsewhere.
//
//   - Fusing is free: five steps that do nothing take 24 ns, two allocations of the steps'
//     own included (BenchmarkChain/fused).
//   - A link is cheap: with one in front the five steps take 3.4 times as long, about 60 ns
//     more; with two, and two cores contending for both, 15 times, 330 ns more
//     (BenchmarkChain/queue_in_front, BenchmarkChain/two_queues).
//   - A channel and a worker at every arrow take 39 times as long as fused, and then the
//     workers are shared: one slow request is in everybody's way
//     (BenchmarkChain/worker_at_every_arrow). A stream made for a single request takes 240
//     times as long (BenchmarkChain/stream_per_request). That is why requests are not
//     streams.
//   - Scatter to one is a call, 17 ns; to four it is 140 times that, 2.4 µs, of which each
//     goroutine is about half a microsecond (BenchmarkScatter).
//   - MergeSorted of 1000 keys beats concatenating and sorting them by 3.8 with 2 lists,
//     2.6 with 4, 2.0 with 16; lists that follow each other cost a seventh of lists that
//     interleave (BenchmarkMergeSorted, for 4 lists). Up to four lists every head is
//     looked at, above a loser tree decides (BenchmarkLinearOrTree).
//   - A value through a channel between two goroutines: 2.2 times as long with capacity 0
//     as with 16, 1.6 times with 1, the same with 128 (BenchmarkHop). 16 has all of the
//     gain; more buys memory. So move pages over channels and merge inside them: a key
//     in a page of 100 costs a third of a hop (BenchmarkMergeSources).
//
// # Using it
//
// Three ways, each an example that runs: decorate a stage of a chain that exists
// (Example_decorate), replace a stage of one (Example_replace), build your own, for
// requests (Example_ownChain) and for streams (Example_ownStream).
package pipeline
