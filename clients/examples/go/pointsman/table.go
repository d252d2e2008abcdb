package pointsman

import (
	"slices"
	"strings"
	"sync"
	"time"

	pb "example.com/pointsman/gen/pointsman/v1"
)

// Table has the routes and the traffic of a watch. Many goroutines may read it while a Watcher writes it.
type Table struct {
	lock       sync.RWMutex
	families   map[string]*family
	hasTraffic bool
	currentAt  time.Time
}

// family has the routes of a tenant, service and env by their versions, and its traffic: nil if none is set.
type family struct {
	routes  map[string]*pb.Route
	traffic *pb.Traffic
}

// Resolve returns the live route of a key, and false where there is none.
func (t *Table) Resolve(key string) (*pb.Route, bool) {
	t.lock.RLock()
	defer t.lock.RUnlock()
	name, version := cut(key)
	if found := t.families[name]; found != nil {
		route := found.routes[version]
		return route, route.GetActive()
	}
	return nil, false
}

// Select returns the route of a family, tenant/service/env, for a caller, and why it is that. A sticky key keeps a caller
// at its version; an empty one stands for a version at random, by the weights.
//
// ErrTrafficUnknown means that the server must be asked: Client.Select.
func (t *Table) Select(name, stickyKey string) (*pb.Route, Choice, error) {
	t.lock.RLock()
	defer t.lock.RUnlock()
	if !t.hasTraffic {
		return nil, Choice{}, ErrTrafficUnknown
	}
	found := t.families[name]
	if found == nil {
		return nil, Choice{}, ErrNoActiveVersion
	}
	choice, err := Choose(name, found.traffic, found.active(), stickyKey)
	return found.routes[choice.Version], choice, err
}

// Len returns how many routes the table has, live or not.
func (t *Table) Len() int {
	t.lock.RLock()
	defer t.lock.RUnlock()
	count := 0
	for _, each := range t.families {
		count += len(each.routes)
	}
	return count
}

// Age returns how long ago the table was known to have everything, and false before the first checkpoint. Decide what to
// do when it exceeds a bound: call the server, serve what there is, or fail.
func (t *Table) Age() (time.Duration, bool) {
	t.lock.RLock()
	defer t.lock.RUnlock()
	return time.Since(t.currentAt), !t.currentAt.IsZero()
}

// Write does what an event asks for. Readers see all of it, or nothing. hasTraffic says whether the table has all traffic
// from now on: Protocol.HasTraffic.
func (t *Table) Write(step Step, hasTraffic bool) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.hasTraffic = hasTraffic
	switch step := step.(type) {
	case Replace:
		t.families = map[string]*family{}
		for _, route := range step.Routes {
			t.of(route.GetKey()).routes[route.GetKey().GetVersion()] = route
		}
		for _, traffic := range step.Traffic {
			key := &pb.RouteKey{Tenant: traffic.GetTenant(), Service: traffic.GetService(), Env: traffic.GetEnv()}
			t.of(key).traffic = traffic
		}
	case Apply:
		for _, change := range step.Changes {
			t.apply(change)
		}
	case Confirm:
		t.currentAt = time.Now().Add(-step.Age)
	}
}

func (t *Table) apply(change *pb.RouteChange) {
	changed, version := t.of(change.GetKey()), change.GetKey().GetVersion()
	switch {
	case version == "": // a change of traffic
		changed.traffic = change.GetTrafficAfter()
	case change.GetAfter() != nil:
		changed.routes[version] = change.GetAfter()
	default:
		delete(changed.routes, version)
	}
	if len(changed.routes) == 0 && changed.traffic == nil {
		name, _ := cut(KeyText(change.GetKey()))
		delete(t.families, name)
	}
}

// of returns the family of a key; a new one where the table has none.
func (t *Table) of(key *pb.RouteKey) *family {
	name, _ := cut(KeyText(key))
	found := t.families[name]
	if found == nil {
		found = &family{routes: map[string]*pb.Route{}}
		t.families[name] = found
	}
	return found
}

func (f *family) active() []string {
	var versions []string
	for version, route := range f.routes {
		if route.GetActive() {
			versions = append(versions, version)
		}
	}
	slices.Sort(versions)
	return versions
}

// cut splits a key into its family and its version.
func cut(key string) (string, string) {
	place := strings.LastIndex(key, "/")
	return key[:max(place, 0)], key[place+1:]
}
