// A probe: calls an echo service by grpc-go without stop, and says when the answer becomes another one.
// The protocol is that of ../probe.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
)

const (
	method          = "/pointsman.test.Echo/Echo"
	deadlineSeconds = 20
	mostOpen        = 64
)

// The payload is the time to wait, and the backend's id: bytes as they are.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (raw) Name() string { return "proto" }

var _ encoding.CodecV2 = raw{}

type command struct {
	Do          string
	ID          int
	Name        string
	URI         string
	Rate        float64
	Seconds     float64
	Credentials string
	CA          string
	Authority   string
}

type outcome struct {
	Code    uint32 `json:"code"`
	Backend string `json:"backend"`
}

type line struct {
	Say string `json:"say"`
	outcome
	ID     int                       `json:"id,omitempty"`
	Name   string                    `json:"name,omitempty"`
	Text   string                    `json:"text,omitempty"`
	Began  int64                     `json:"began,omitempty"`
	At     int64                     `json:"at,omitempty"`
	Before int                       `json:"before"`
	Last   int64                     `json:"last,omitempty"`
	Counts map[string]map[string]int `json:"counts,omitempty"`
}

type target struct {
	name    string
	conn    *grpc.ClientConn
	seconds float64
	stop    chan struct{}
	calls   sync.WaitGroup
	open    atomic.Int64
	last    outcome
	run     int
	began   int64
	counts  map[string]int
}

var (
	mutex   sync.Mutex
	output  = json.NewEncoder(os.Stdout)
	targets = map[string]*target{}
)

// Must be called with the mutex held.
func say(l line) { _ = output.Encode(l) }

func transport(c command) (credentials.TransportCredentials, error) {
	switch c.Credentials {
	case "xds":
		return xds.NewClientCredentials(xds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	case "tls":
		return credentials.NewClientTLSFromFile(c.CA, "")
	}
	return insecure.NewCredentials(), nil
}

func open(c command) (*target, error) {
	creds, err := transport(c)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})),
	}
	if c.Authority != "" {
		options = append(options, grpc.WithAuthority(c.Authority))
	}
	conn, err := grpc.NewClient(c.URI, options...)
	if err != nil {
		return nil, err
	}
	t := &target{name: c.Name, conn: conn, seconds: c.Seconds, stop: make(chan struct{}), counts: map[string]int{}}
	if c.Rate > 0 {
		t.calls.Add(1)
		go t.loop(c.Rate)
	}
	return t, nil
}

// Begins calls at a rate, however long each takes, while fewer than mostOpen are under way.
func (t *target) loop(rate float64) {
	defer t.calls.Done()
	pause := time.Duration(float64(time.Second) / rate)
	for next := time.Now(); ; next = next.Add(pause) {
		if behind := time.Since(next); behind > time.Second {
			next = next.Add(behind)
		}
		select {
		case <-t.stop:
			return
		case <-time.After(time.Until(next)):
		}
		if t.open.Add(1) > mostOpen {
			t.open.Add(-1)
			continue
		}
		t.calls.Add(1)
		go func() {
			defer t.calls.Done()
			defer t.open.Add(-1)
			t.count(t.call(t.seconds))
		}()
	}
}

func (t *target) call(seconds float64) line {
	ctx, cancel := context.WithTimeout(context.Background(), deadlineSeconds*time.Second)
	defer cancel()
	began := time.Now().UnixNano()
	request := []byte(strconv.FormatFloat(seconds, 'f', -1, 64))
	var reply []byte
	err := t.conn.Invoke(ctx, method, &request, &reply)
	s := status.Convert(err)
	return line{
		outcome: outcome{uint32(s.Code()), string(reply)},
		Name:    t.name, Text: s.Message(), Began: began, At: time.Now().UnixNano(),
	}
}

func (t *target) count(l line) {
	mutex.Lock()
	defer mutex.Unlock()
	if t.run == 0 || l.outcome != t.last {
		l.Say, l.Before, l.Last = "change", t.run, t.began
		say(l)
		t.last, t.run = l.outcome, 0
	}
	t.run++
	t.began = l.Began
	t.counts[fmt.Sprintf("%d %s", l.Code, l.Backend)]++
}

// Must be called with the mutex held.
func drop(name string) {
	if t := targets[name]; t != nil {
		delete(targets, name)
		close(t.stop)
		go func() {
			t.calls.Wait()
			_ = t.conn.Close()
		}()
	}
}

func obey(c command) {
	mutex.Lock()
	defer mutex.Unlock()
	switch c.Do {
	case "target":
		drop(c.Name)
		t, err := open(c)
		if err != nil {
			say(line{Say: "error", Name: c.Name, Text: err.Error()})
			return
		}
		targets[c.Name] = t
	case "drop":
		drop(c.Name)
	case "call":
		if t := targets[c.Name]; t != nil {
			t.calls.Add(1)
			go func() {
				defer t.calls.Done()
				l := t.call(c.Seconds)
				l.Say, l.ID = "call", c.ID
				mutex.Lock()
				defer mutex.Unlock()
				say(l)
			}()
		}
	case "summary":
		counts := map[string]map[string]int{}
		for name, t := range targets {
			counts[name] = t.counts
		}
		say(line{Say: "summary", ID: c.ID, Counts: counts})
	}
}

func main() {
	mutex.Lock()
	say(line{Say: "ready"})
	mutex.Unlock()
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var c command
		if err := json.Unmarshal(input.Bytes(), &c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if c.Do == "stop" {
			return
		}
		obey(c)
	}
}
