// Package store makes events durable before anyone hears of them, and hands them
// on in order.
//
// One Pebble database is write-ahead log, event store, process table and journal
// (docs/store.md describes its keys and files).
//
// # Contract
//
//   - [Store.Append] returns nil only when the whole batch is on disk: its events,
//     the changes of the process table, what goes with them. It is all or nothing.
//   - Sequences are assigned densely from 1 within an [event.Epoch]. Nobody is shown
//     a sequence above the durable head, and none that was shown is used again.
//   - A sequence at or above the floor that is absent is in the range of exactly one
//     loss event: ranges never overlap. Readers are shown no absence before it is
//     durable.
//   - A number whose batch failed was seen by nobody and may be assigned again after
//     the store was reopened.
//   - A store without space (ENOSPC, EDQUOT, a read-only file system, or less free
//     space than [Config.Reserve] asks for) leaves service: calls that need it answer
//     [ErrUnavailable] with the reason, the process lives, and [Store.Serve] brings
//     the store back when there is space. Nothing accepted is lost.
//   - What is owed to a receiver ([Config.Owed]) and not acknowledged is its backlog.
//     It is removed only where it would pass [Config.MaxBacklog]: an append then sheds
//     the oldest, down to 90 % of it, in one durable batch with a loss event. Stops and
//     losses are spared until they alone reach 120 %.
//   - [Store.Resume] believes the receiver about what it has, whichever of the two was
//     restored from an older copy. [Store.Wait], [Store.Read] and [Store.Ack] are told
//     the epoch that they mean, and do nothing in another one.
//   - Corruption, and nothing else, sets the store aside in a directory beside it
//     and starts an empty one with a new epoch.
//   - Any other failure of a write, and a write that blocks past
//     [Config.CommitDeadline], calls [Config.Fatal]: the state of the file system is
//     not known any more and a new process must find it out.
//   - One process at a time opens a store. Everybody else gets [ErrLocked].
//
// # Concurrency
//
// All methods may be called from any goroutine. Writes take turns: each waits for
// the one before it to be durable. Reads never wait for writes. The package starts
// goroutines only in [Store.Serve] and, bounded, in [Store.Close].
package store
