package pointsman

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"time"

	pb "example.com/pointsman/gen/pointsman/v1"
)

// Silence is how long a stream may bring nothing: the server sends a checkpoint at least every 5 seconds.
const Silence = 15 * time.Second

// Filter says which routes to watch. An empty field stands for all.
type Filter struct {
	Tenant, Service, Env string
}

// Watcher keeps a table current, over all the streams that it takes.
type Watcher struct {
	// Table is safe to read at any time.
	Table *Table
	// Name is shown to operators who ask which watchers have a revision.
	Name string
	// Silence closes a stream that has brought nothing for so long.
	Silence time.Duration
	// OnStep is called after the table was written. May be nil. A slow function delays the events: hand the work over.
	OnStep func(Step)
	// OnInterruption is called when a stream has ended, with where the next one goes on: nil for a snapshot. May be nil.
	OnInterruption func(err error, resume *pb.ResumeToken, pause time.Duration)

	client   *Client
	filter   Filter
	id       string
	protocol *Protocol
}

// NewWatcher prepares a watcher with an empty table.
func NewWatcher(client *Client, filter Filter) *Watcher {
	return &Watcher{
		Table:    &Table{},
		Silence:  Silence,
		client:   client,
		filter:   filter,
		id:       rand.Text(),
		protocol: NewProtocol(mathrand.Float64),
	}
}

// Run watches until the context ends.
func (w *Watcher) Run(ctx context.Context) {
	for {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := w.protocol.Ended(err, time.Now())
		if w.OnInterruption != nil {
			w.OnInterruption(err, w.protocol.Resume(), pause)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// follow reads one stream to its end, and returns what it ended with: nil, an *Error, or what closed it here.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("the stream was silent for %s", w.Silence)
	alarm := time.AfterFunc(w.Silence, func() { cancel(silent) })
	defer alarm.Stop()

	w.protocol.Opened(time.Now())
	stream, err := w.client.routes.Watch(ctx, w.request())
	for err == nil {
		var event *pb.WatchResponse
		if event, err = stream.Recv(); err != nil {
			break
		}
		alarm.Reset(w.Silence)
		var step Step
		if step, err = w.protocol.Received(event); err != nil {
			return err
		}
		if step != nil {
			w.take(ctx, step)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case context.Cause(ctx) == silent:
		return silent
	default:
		return AsError(err)
	}
}

func (w *Watcher) take(ctx context.Context, step Step) {
	w.Table.Write(step, w.protocol.HasTraffic())
	if w.OnStep != nil {
		w.OnStep(step)
	}
	if confirm, ok := step.(Confirm); ok && confirm.ReportProgress {
		go w.report(context.WithoutCancel(ctx), confirm.AsOf)
	}
}

// report says that the table has a revision. A report that fails is asked for again.
func (w *Watcher) report(ctx context.Context, applied Token) {
	ctx, cancel := context.WithTimeout(ctx, w.client.timeout)
	defer cancel()
	_, _ = w.client.routes.ReportProgress(ctx, &pb.ReportProgressRequest{
		WatcherId: w.id,
		Applied:   &pb.ResumeToken{Epoch: applied.Epoch, Revision: applied.Revision},
		Tenant:    w.filter.Tenant,
		Service:   w.filter.Service,
		Env:       w.filter.Env,
	})
}

func (w *Watcher) request() *pb.WatchRequest {
	return &pb.WatchRequest{
		Tenant:  w.filter.Tenant,
		Service: w.filter.Service,
		Env:     w.filter.Env,
		Resume:  w.protocol.Resume(),
		Watcher: &pb.Watcher{Id: w.id, Name: w.Name},
		Traffic: true,
	}
}
