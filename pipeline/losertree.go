package pipeline

// loserTree finds the least head of k sorted lists with log2(k) comparisons a value.
// It is a tournament in which every inner node remembers who lost there, so that
// after a change of one list only the matches on its way to the top are played again
// (Knuth, The Art of Computer Programming, volume 3, section 5.4.1).
//
// List i is leaf k+i of a binary tree whose inner nodes are 1 to k-1; the parent of
// node n is n/2. An empty list loses against every other. Equal heads are won by
// the list with the lower number, which makes a merge stable.
type loserTree[T any] struct {
	cmp   func(a, b T) int
	heads [][]T // what is left of each list; after changing heads[i] call replay(i)
	loser []int // loser[n] is the list that lost at node n; loser[0] is the winner of all
}

// newLoserTree plays all matches. It takes heads over; there are at least two.
func newLoserTree[T any](cmp func(a, b T) int, heads [][]T) *loserTree[T] {
	k := len(heads)
	t := &loserTree[T]{cmp: cmp, heads: heads, loser: make([]int, k)}
	winner := make([]int, 2*k)
	for i := range heads {
		winner[k+i] = i
	}
	for n := k - 1; n >= 1; n-- {
		a, b := winner[2*n], winner[2*n+1]
		if t.beats(b, a) {
			a, b = b, a
		}
		winner[n], t.loser[n] = a, b
	}
	t.loser[0] = winner[1]
	return t
}

// winner is the list with the least head. If that list is empty, all are.
func (t *loserTree[T]) winner() int { return t.loser[0] }

// replay plays the matches of list i again, which must be the winner.
func (t *loserTree[T]) replay(i int) {
	for n := (len(t.heads) + i) / 2; n >= 1; n /= 2 {
		if t.beats(t.loser[n], i) {
			t.loser[n], i = i, t.loser[n]
		}
	}
	t.loser[0] = i
}

// second is the list with the least head but for the winner's. It lost against the
// winner, so it stands on the winner's way up.
func (t *loserTree[T]) second() int {
	best := -1
	for n := (len(t.heads) + t.loser[0]) / 2; n >= 1; n /= 2 {
		if l := t.loser[n]; best < 0 || t.beats(l, best) {
			best = l
		}
	}
	return best
}

// beats says whether the head of list a comes before that of list b.
func (t *loserTree[T]) beats(a, b int) bool {
	x, y := t.heads[a], t.heads[b]
	if len(x) == 0 || len(y) == 0 {
		return len(x) > 0 || len(y) == 0 && a < b
	}
	c := t.cmp(x[0], y[0])
	return c < 0 || c == 0 && a < b
}
