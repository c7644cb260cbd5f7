// Package history judges what clients of one logical etcd asked and got. Because every
// reply carries a revision, judging needs no search: the acknowledged writes are put in
// the order of their revisions, replayed on one store, and every reply must be what that
// store says at the reply's own revision, while revisions respect real time.
//
//	Log       what clients asked, when, and what came back
//	Timeline  every event there was, by revision: the final watch from the beginning
//	Check     holds a Log against a Timeline
//	Watch     what one watcher received, over all streams it had
//	CheckWatch holds a Watch against a Timeline: etcd's six guarantees
//	Model     "one etcd with one revision" for porcupine, which does search
//
// Nothing here knows sharder: one plain etcd must pass every check.
package history
