package pointsman

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	pb "example.com/pointsman/gen/pointsman/v1"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// refusedPause is for errors that another attempt alone does not mend, such as a missing permission.
	refusedPause = 10 * time.Second
	// provenAfter is how long a stream must last for the pause after it to be short again.
	provenAfter = 5 * time.Second
)

// Token says which changes a table has: all of the epoch up to the revision.
type Token struct {
	Epoch    string
	Revision int64
}

// Step is what to do with the table after an event: one of Replace, Apply and Confirm.
type Step interface{ step() }

// Replace means: the table is exactly these routes and this traffic. Replace all of it at once.
type Replace struct {
	AsOf    Token
	Routes  []*pb.Route
	Traffic []*pb.Traffic
}

// Apply means: these changes were made together. Apply all of them at once.
type Apply struct {
	AsOf    Token
	Changes []*pb.RouteChange
}

// Confirm means: nothing is missing up to AsOf, and the server knew so Age ago.
type Confirm struct {
	AsOf           Token
	Age            time.Duration
	ReportProgress bool
	// First says that it is the first one since the stream began or was reset: the table is live from now on.
	First bool
}

func (Replace) step() {}
func (Apply) step()   {}
func (Confirm) step() {}

// errProtocol is wrapped by what Received returns for an event that must not come: close the stream.
var errProtocol = errors.New("the server broke the protocol of Watch")

// Protocol is the client's side of Watch as a state machine without I/O: events go in, and what to do comes out. The
// server's documentation has its rules: docs/watch.md.
//
// For each stream: Opened, then Received for each event, then Ended, and wait for as long as it returns.
type Protocol struct {
	token *Token // what the table has; nil before the first snapshot
	void  bool   // whether the next stream must begin with a snapshot

	sendsTraffic bool // whether the stream has traffic: an older server sends none
	hasTraffic   bool // whether the table has all traffic as of the token

	staged        []*pb.Route
	stagedTraffic []*pb.Traffic
	stagedAsOf    *Token
	partial       []*pb.RouteChange

	live     bool
	openedAt time.Time
	failures int
	random   func() float64 // from 0 to 1
}

// NewProtocol begins without a table. random spreads the pauses, for example rand.Float64.
func NewProtocol(random func() float64) *Protocol {
	return &Protocol{void: true, random: random}
}

// Resume returns where the next stream goes on; nil stands for a snapshot.
func (p *Protocol) Resume() *pb.ResumeToken {
	if p.void {
		return nil
	}
	return &pb.ResumeToken{Epoch: p.token.Epoch, Revision: p.token.Revision}
}

// HasTraffic says whether the table has all traffic. If not, the server must be asked for what a caller is to use.
func (p *Protocol) HasTraffic() bool { return p.hasTraffic }

// Opened begins a stream that was asked for with Resume.
func (p *Protocol) Opened(now time.Time) {
	p.dropUnfinished()
	p.live, p.sendsTraffic, p.openedAt = false, false, now
}

// Received takes an event. It returns what to do, or nil for nothing, and an error when the stream must be closed.
func (p *Protocol) Received(event *pb.WatchResponse) (Step, error) {
	if opened := event.GetOpened(); opened != nil {
		return nil, p.begin(opened.GetTraffic())
	}
	if !p.sendsTraffic {
		p.hasTraffic = false // what follows may leave out changes of it
	}
	switch event := event.GetEvent().(type) {
	case *pb.WatchResponse_Snapshot:
		return nil, p.batch(event.Snapshot)
	case *pb.WatchResponse_EndOfSnapshot:
		return p.endOfSnapshot(event.EndOfSnapshot)
	case *pb.WatchResponse_Changes:
		return p.changes(event.Changes)
	case *pb.WatchResponse_Checkpoint:
		return p.checkpoint(event.Checkpoint)
	case *pb.WatchResponse_Reset_:
		p.dropUnfinished()
		p.void, p.live = true, false
	}
	return nil, nil // an event that this client does not know is ignored
}

// Ended ends a stream, by nil where the server closed it with OK. It returns how long to pause before the next one.
func (p *Protocol) Ended(err error, now time.Time) time.Duration {
	p.dropUnfinished()
	p.live = false
	if now.Sub(p.openedAt) >= provenAfter {
		p.failures = 0
	}
	p.failures++
	var failure *Error
	if !errors.As(err, &failure) {
		return p.spread(p.backoff())
	}
	switch failure.Code {
	case codes.OutOfRange, codes.Aborted: // what follows the token is not kept, or it is of another epoch
		if !p.void {
			p.void = true
			return p.spread(firstPause)
		}
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return p.spread(refusedPause)
	}
	asked := time.Duration(float64(failure.RetryDelay) * (1 + p.random()/2))
	return max(p.spread(p.backoff()), asked)
}

func (p *Protocol) backoff() time.Duration {
	return min(firstPause<<min(p.failures-1, 16), longestPause)
}

// spread returns from half of the pause to all of it, so that clients that were cut off together come back one by one.
func (p *Protocol) spread(pause time.Duration) time.Duration {
	return time.Duration(float64(pause) * (1 - p.random()/2))
}

func (p *Protocol) dropUnfinished() {
	p.staged, p.stagedTraffic, p.stagedAsOf, p.partial = nil, nil, nil, nil
}

func (p *Protocol) begin(sendsTraffic bool) error {
	p.sendsTraffic = sendsTraffic
	if sendsTraffic && !p.hasTraffic && !p.void {
		p.void = true
		return violation("the table has no traffic, and this server sends it: a snapshot is needed")
	}
	return nil
}

func (p *Protocol) batch(batch *pb.SnapshotBatch) error {
	if err := p.checkStaged(batch.GetAsOf()); err != nil {
		return err
	}
	asOf := tokenOf(batch.GetAsOf())
	p.stagedAsOf = &asOf
	p.staged = append(p.staged, batch.GetRoutes()...)
	p.stagedTraffic = append(p.stagedTraffic, batch.GetTraffic()...)
	return nil
}

func (p *Protocol) endOfSnapshot(end *pb.EndOfSnapshot) (Step, error) {
	if err := p.checkStaged(end.GetAsOf()); err != nil {
		return nil, err
	}
	asOf := tokenOf(end.GetAsOf())
	if int64(len(p.staged)) != end.GetRouteCount() {
		return nil, violation("a snapshot of %d routes arrived with %d", end.GetRouteCount(), len(p.staged))
	}
	if int64(len(p.stagedTraffic)) != end.GetTrafficCount() {
		return nil, violation("%d of %d traffic entries arrived", len(p.stagedTraffic), end.GetTrafficCount())
	}
	if p.token != nil && p.token.Epoch == asOf.Epoch && asOf.Revision < p.token.Revision {
		return nil, violation("a snapshot is older than the table")
	}
	routes, traffic := p.staged, p.stagedTraffic
	p.dropUnfinished()
	p.token, p.void, p.hasTraffic = &asOf, false, p.sendsTraffic
	return Replace{asOf, routes, traffic}, nil
}

func (p *Protocol) checkStaged(asOf *pb.ResumeToken) error {
	if !p.void {
		return violation("a snapshot came that was not asked for")
	}
	if p.stagedAsOf != nil && *p.stagedAsOf != tokenOf(asOf) {
		return violation("parts of a snapshot are as of different revisions")
	}
	return nil
}

func (p *Protocol) changes(set *pb.ChangeSet) (Step, error) {
	if p.void {
		return nil, violation("changes came before the end of the snapshot")
	}
	p.partial = append(p.partial, set.GetChanges()...)
	if set.GetPartial() {
		return nil, nil
	}
	asOf := tokenOf(set.GetAsOf())
	if asOf.Epoch != p.token.Epoch {
		return nil, violation("the epoch changed without a reset")
	}
	var news []*pb.RouteChange
	for _, change := range p.partial {
		if change.GetRevision() > p.token.Revision {
			news = append(news, change)
		}
	}
	p.partial = nil
	if asOf.Revision < p.token.Revision {
		return nil, nil // the table has all of it
	}
	p.token = &asOf
	return Apply{asOf, news}, nil
}

func (p *Protocol) checkpoint(checkpoint *pb.Checkpoint) (Step, error) {
	asOf := tokenOf(checkpoint.GetAsOf())
	switch {
	case p.void:
		return nil, violation("a checkpoint came before the end of the snapshot")
	case len(p.partial) > 0:
		return nil, violation("a change set was not completed")
	case asOf.Epoch != p.token.Epoch:
		return nil, violation("the epoch changed without a reset")
	case asOf.Revision < p.token.Revision:
		return nil, violation("a checkpoint is older than the table")
	}
	first := !p.live
	p.token, p.live = &asOf, true
	return Confirm{asOf, max(0, checkpoint.GetAge().AsDuration()), checkpoint.GetReportProgress(), first}, nil
}

func tokenOf(token *pb.ResumeToken) Token {
	return Token{token.GetEpoch(), token.GetRevision()}
}

func violation(format string, values ...any) error {
	return fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, values...))
}
