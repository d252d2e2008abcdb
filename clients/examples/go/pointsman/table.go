package pointsman

import (
	"sync"
	"time"

	pb "example.com/pointsman/gen/pointsman/v1"
)

// Table has the routes of a watch. Many goroutines may read it while a Watcher writes it.
type Table struct {
	lock      sync.RWMutex
	routes    map[string]*pb.Route
	currentAt time.Time
}

// Resolve returns the live route of a key, and false where there is none.
func (t *Table) Resolve(key string) (*pb.Route, bool) {
	t.lock.RLock()
	defer t.lock.RUnlock()
	route, found := t.routes[key]
	return route, found && route.GetActive()
}

// Len returns how many routes the table has, live or not.
func (t *Table) Len() int {
	t.lock.RLock()
	defer t.lock.RUnlock()
	return len(t.routes)
}

// Age returns how long ago the table was known to have everything, and false before the first checkpoint. Decide what to
// do when it exceeds a bound: call the server, serve what there is, or fail.
func (t *Table) Age() (time.Duration, bool) {
	t.lock.RLock()
	defer t.lock.RUnlock()
	return time.Since(t.currentAt), !t.currentAt.IsZero()
}

// Write does what an event asks for. Readers see all of it, or nothing.
func (t *Table) Write(step Step) {
	t.lock.Lock()
	defer t.lock.Unlock()
	switch step := step.(type) {
	case Replace:
		t.routes = make(map[string]*pb.Route, len(step.Routes))
		for _, route := range step.Routes {
			t.routes[KeyText(route.GetKey())] = route
		}
	case Apply:
		for _, change := range step.Changes {
			if after := change.GetAfter(); after != nil {
				t.routes[KeyText(change.GetKey())] = after
			} else {
				delete(t.routes, KeyText(change.GetKey()))
			}
		}
	case Confirm:
		t.currentAt = time.Now().Add(-step.Age)
	}
}
