package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/collect/event"
)

// place is a sequence of an epoch.
type place struct {
	epoch event.Epoch
	seq   uint64
}

// receiver is what takes delivery, and may be restored from an older copy.
type receiver struct {
	event.Receipt
	// began is, of each epoch, the first event that was sent to it at all.
	began map[event.Epoch]uint64
	taken map[place]string       // as it was encoded
	told  map[event.Epoch][]span // lost
}

func newReceiver(stream string) receiver {
	return receiver{Receipt: event.Receipt{Stream: stream}, began: map[event.Epoch]uint64{}, taken: map[place]string{}, told: map[event.Epoch][]span{}}
}

func (r receiver) clone() receiver {
	r.began, r.taken, r.told = maps.Clone(r.began), maps.Clone(r.taken), maps.Clone(r.told)
	return r
}

func (r *receiver) take(p place, encoded []byte) error {
	if before, ok := r.taken[p]; ok && before != string(encoded) {
		return fmt.Errorf("%v comes again with other bytes", p)
	}
	r.taken[p] = string(encoded)
	r.Epoch, r.Seq = p.epoch, p.seq
	var e event.Event
	if err := event.Decode(encoded, &e); err != nil {
		return err
	}
	if l := e.Loss; l != nil && l.ToSeq > 0 {
		r.told[p.epoch] = append(slices.Clip(r.told[p.epoch]), span{l.FromSeq, l.ToSeq})
	}
	return nil
}

// excuse takes what the receiver passed over, and was not told of yet, for told.
func (r *receiver) excuse() {
	for seq := r.began[r.Epoch]; seq < r.Seq; seq++ {
		if _, taken := r.taken[place{r.Epoch, seq}]; !taken {
			r.told[r.Epoch] = append(slices.Clip(r.told[r.Epoch]), span{seq, seq})
		}
	}
}

// delivery is a store and its receiver, to either of which anything may happen.
type delivery struct {
	*rapid.T
	t       *testing.T
	fs      *vfs.MemFS
	disk    vfs.FS // instead of fs, if not nil
	s       *Store
	r       receiver
	streams int
	olds    []receiver   // copies of the receiver, to be restored
	disks   []*vfs.MemFS // copies of the store's disk
}

// tinyBudget makes models fast; Open refuses it.
const tinyBudget = 64 << 10

func (d *delivery) open() {
	c := testConfig(d.t, d.fs)
	if d.disk != nil {
		c.FS = d.disk
	}
	c.MaxBacklog = tinyBudget
	d.s = newStore(c.withDefaults())
	if err := d.s.attach(d.t.Context(), 0); err != nil {
		d.t.Fatal(err)
	}
}

// reopen goes on with a disk.
func (d *delivery) reopen(fs *vfs.MemFS, clean bool) {
	if err := d.s.Close(clean); err != nil {
		d.Fatal(err)
	}
	d.fs = fs
	d.open()
}

func (d *delivery) diskCopy() *vfs.MemFS {
	percent := rapid.IntRange(0, 100).Draw(d.T, "unsynced kept")
	seed := rapid.Uint64().Draw(d.T, "seed")
	return d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 46))})
}

// resume does what a publisher does before it sends.
func (d *delivery) resume() {
	_, cursor, err := d.s.Resume(d.t.Context(), d.r.Receipt)
	if errors.Is(err, ErrUnavailable) {
		if err := d.s.reopen(d.t.Context(), leaveBroken); err != nil {
			d.Fatal(err)
		}
		_, cursor, err = d.s.Resume(d.t.Context(), d.r.Receipt)
	}
	if err != nil {
		d.Fatal(err)
	}
	epoch := d.s.Stats().Epoch
	if d.r.Epoch == epoch && cursor != d.r.Seq {
		d.Fatalf("the cursor is %d, the receiver has %d", cursor, d.r.Seq)
	}
	// One that has nothing begins where the store wants it to.
	if _, ok := d.r.began[epoch]; !ok || d.r.Epoch.IsZero() {
		d.r.began[epoch] = cursor + 1
	}
	d.r.began[epoch] = min(d.r.began[epoch], cursor+1)
}

// send gives the receiver up to n events after what it has.
func (d *delivery) send(n int) {
	st := d.s.Stats()
	from := st.Cursor + 1
	if d.r.Epoch == st.Epoch {
		from = max(from, d.r.Seq+1)
	}
	err := d.s.Read(d.t.Context(), st.Epoch, from, n, func(seq uint64, encoded []byte) error {
		return d.r.take(place{st.Epoch, seq}, encoded)
	})
	if err != nil {
		d.Fatal(err)
	}
}

func (d *delivery) ack() {
	if st := d.s.Stats(); d.r.Epoch == st.Epoch {
		if err := d.s.Ack(d.t.Context(), st.Epoch, d.r.Seq); err != nil {
			d.Fatal(err)
		}
	}
}

func (d *delivery) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"append": d.append, "append more": d.append, "append most": d.append,
		"deliver": func(t *rapid.T) {
			d.resume()
			for range rapid.IntRange(1, 3).Draw(t, "batches") {
				d.send(rapid.IntRange(1, 10).Draw(t, "batch"))
				if rapid.IntRange(0, 3).Draw(t, "answer arrives") > 0 {
					d.ack()
				}
			}
		},
		"retain": func(t *rapid.T) {
			st := d.s.Stats()
			if floor := rapid.Uint64Range(st.Floor, max(st.Floor, st.Cursor+1)).Draw(t, "floor"); floor > st.Floor {
				if err := d.s.removeBelow(d.s.session, floor, nil); err != nil {
					t.Fatal(err)
				}
			}
		},
		"crash":            func(*rapid.T) { d.reopen(d.diskCopy(), false) },
		"restart":          func(*rapid.T) { d.reopen(d.fs, true) },
		"copy receiver":    func(*rapid.T) { d.olds = append(d.olds, d.r.clone()) },
		"restore receiver": func(t *rapid.T) { d.restoreReceiver(t) },
		"new receiver": func(*rapid.T) {
			d.streams++
			d.r = newReceiver(fmt.Sprint(d.streams))
			d.resume()
		},
		"copy store":    func(*rapid.T) { d.disks = append(d.disks, d.diskCopy()) },
		"restore store": func(t *rapid.T) { d.restoreStore(t) },
		"":              d.check,
	}
}

func (d *delivery) append(t *rapid.T) {
	kinds := rapid.SliceOfN(rapid.SampledFrom([]event.Kind{event.KindStart, event.KindStart, event.KindExec, event.KindStop, event.KindStop, event.KindLoss}), 1, 12).Draw(t, "kinds")
	size := rapid.SampledFrom([]int{100, 1000, 3000}).Draw(t, "size")
	if err := d.s.Append(d.t.Context(), sized(size, kinds...)); err != nil {
		t.Fatal(err)
	}
}

// restoreReceiver restores an older copy of the receiver. If it had passed over what was
// shed, and the loss event that says so has been removed since, it is not told again.
func (d *delivery) restoreReceiver(t *rapid.T) {
	if len(d.olds) == 0 {
		t.Skip("no copy")
	}
	d.r = d.olds[rapid.IntRange(0, len(d.olds)-1).Draw(t, "copy")].clone()
	if d.s.Stats().Floor > d.r.Seq+1 {
		d.r.excuse()
	}
	d.resume()
}

// restoreStore restores an older copy of the store. It learns of that at once: what it
// appends before would have sequences that the receiver knows. A copy that has all
// that the receiver has can't be told from the store itself. If what was shed since is
// between, and the loss event that says so was not sent yet, nobody knows any more.
func (d *delivery) restoreStore(t *rapid.T) {
	if len(d.disks) == 0 {
		t.Skip("no copy")
	}
	d.r.excuse()
	d.reopen(d.disks[rapid.IntRange(0, len(d.disks)-1).Draw(t, "copy")].CrashClone(vfs.CrashCloneCfg{}), false)
	d.resume()
	d.olds = nil // they may know sequences of the copy's epoch that come again
	d.disks = nil
}

func (d *delivery) check(t *rapid.T) {
	a := audit(t, d.s)
	if st := d.s.Stats(); a.absent > 0 && st.Losses == nil {
		t.Fatalf("%d absent, and no losses: %+v", a.absent, st)
	}
}

// drain delivers all, and checks that the receiver has, or knows to be lost, every
// event since the first one that it was sent.
func (d *delivery) drain() {
	d.resume()
	for d.s.Stats().BacklogEvents > 0 {
		d.send(50)
		d.ack()
	}
	st := d.s.Stats()
	for seq := d.r.began[st.Epoch]; seq <= st.Head; seq++ {
		told := slices.ContainsFunc(d.r.told[st.Epoch], func(s span) bool { return s.holds(seq) })
		if _, taken := d.r.taken[place{st.Epoch, seq}]; !taken && !told {
			d.Fatalf("event %d of %d was neither sent nor told as lost; began at %d, floor %d", seq, st.Head, d.r.began[st.Epoch], st.Floor)
		}
	}
}

// TestDeliveryModel does anything to a store and its receiver, and whatever was done:
// nothing that was owed is missing without a word, and what the store counts is there.
func TestDeliveryModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &delivery{T: rt, t: t, fs: vfs.NewCrashableMem(), r: newReceiver("0")}
		d.open()
		d.resume()
		rt.Repeat(d.actions())
		d.drain()
		d.check(rt)
		mustClose(t, d.s, true)
	})
}
