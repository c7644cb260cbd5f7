// Package script is a small language for tests that run on any etcd endpoint:
// the same file is run against one plain etcd and against sharder, and the replies
// are compared with what the file says and with each other.
//
//	# A comment. Every statement stands at the left margin.
//	put a 1
//	> ok
//	put z "two words" lease=L
//	> error NotFound "etcdserver: requested lease not found"
//	get "" from-key
//	> a 1 version=1
//	> count 1
//
// Lines that begin with ">" say what the reply is. Words without a name must be
// there and equal; words with a name (version=, lease=, mod=, create=, rev=) are
// looked at only where the file writes them. A word $name stands for a revision:
// in an expectation an unknown $name takes the value that is there, a known one
// must be equal; commands may compute with it ($name+1). Revisions are written no
// other way, because each shard has its own.
//
// # Words
//
// A word is bare, or quoted as in Go. @N is a value of N bytes. Options follow the
// positional words; a quoted word is never an option.
//
// # Commands
//
//	put KEY VALUE [lease=NAME] [prev-kv] [ignore-value] [ignore-lease]
//	get KEY [END] [prefix] [from-key] [limit=N] [sort=key|version|create|mod|value]
//	    [order=asc|desc] [keys-only] [count-only] [serializable] [rev=$R] [stream]
//	    [min-mod=$R] [max-mod=$R] [min-create=$R] [max-create=$R]
//	del KEY [END] [prefix] [from-key] [prev-kv]
//	compact $R [physical]
//	fill PREFIX N VALUE              N puts of PREFIX0000, PREFIX0001…
//	txn                              its parts are indented lines:
//	  if TARGET KEY [END] [prefix] [from-key] OP OPERAND
//	  then COMMAND                   TARGET value, version, create, mod, lease
//	  else COMMAND                   OP =, !=, <, >; COMMAND put, get, del or txn
//	  then fill PREFIX N VALUE       N puts
//	grant NAME ttl=N [id=N]          a lease; NAME stands for its id from now on
//	revoke NAME | keepalive NAME | ttl NAME [keys] | leases
//	watch NAME KEY [END] [prefix] [from-key] [rev=$R] [prev-kv] [no-put] [no-delete]
//	    [progress-notify] [fragment] [id=N] [on=STREAM]
//	expect NAME [unordered]          the next lines of a watch; waits for them.
//	                                 unordered: shards without an order mix them
//	quiet NAME                       nothing arrives on the watch
//	cancel NAME                      cancels it; "canceled" arrives on it
//	cancel-id STREAM N               cancels by number, whoever has it
//	progress STREAM                  asks for progress
//	half-close STREAM                the client sends no more
//	raw SERVICE/METHOD TEXT          any unary request, in protobuf's text format
//	bytes SERVICE/METHOD HEX         the same, its bytes as they are
//	restart | kill                   of the server; streams end, leases and keys stay
//
// A watch opens a stream of its own name unless on= puts it on another's. Its
// "created" is the reply to the watch statement. What a watch received and no
// expect asked for is an error at the end of the file.
//
// # Differences
//
// What sharder with several shards is meant to answer differently follows the
// common expectation, with the reason:
//
//	differs "shards have their own revisions"
//	> error FailedPrecondition like "sharder: *"
//
// "differs apart" is for shards without an order alone: with one they answer as etcd.
// "differs reserved" is for servers that keep keys for themselves; in a namespace no key is
// reserved. "apart" with a reason, in the first lines, says that even then the revisions are not
// those of one etcd.
//
// "like" compares with * as in file names. Between "single-shard" and "any-shard"
// a file promises to touch one shard only, and revisions are compared there too,
// counted from the first reply. With one shard every revision is compared, always.
// "shapes one" in the first lines restricts a file to the plain etcd and one shard;
// "shapes order" says that it needs one revision over all shards.
package script
