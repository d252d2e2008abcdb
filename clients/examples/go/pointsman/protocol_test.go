package pointsman

import (
	"encoding/json"
	"maps"
	"os"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	pb "example.com/pointsman/gen/pointsman/v1"
)

// watchCase is one case of watch-cases.json, which the clients of all languages share.
type watchCase struct {
	Name  string
	Steps []watchStep
}

type watchStep struct {
	Do           string // open, receive, end or compare
	At           float64
	Resume       *struct{ Epoch, Revision string }
	Event        json.RawMessage
	Step         string // what Received returns: replace, apply, confirm, none or fail
	Revisions    []string
	First        *bool
	AgeSeconds   float64
	Report       bool
	Code         string
	RetrySeconds float64
	Pause        [2]float64
	Live         map[string]string
	HasTraffic   *bool
	Traffic      map[string]map[string]int32 // weights by version
}

func TestWatchCases(t *testing.T) {
	content, err := os.ReadFile("testdata/watch-cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []watchCase
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("there are no cases")
	}
	for _, each := range cases {
		t.Run(each.Name, func(t *testing.T) {
			for _, random := range []float64{0, 1} {
				runner := caseRunner{t: t, random: random, protocol: NewProtocol(func() float64 { return random }), table: &Table{}}
				for _, step := range each.Steps {
					runner.run(step)
				}
			}
		})
	}
}

// caseRunner runs the steps of a case, for one value of the random part of pauses.
type caseRunner struct {
	t        *testing.T
	random   float64
	protocol *Protocol
	table    *Table
	failure  error
}

func (r *caseRunner) run(step watchStep) {
	r.t.Helper()
	now := time.Unix(1_700_000_000, 0).Add(seconds(step.At))
	switch step.Do {
	case "open":
		r.open(step, now)
	case "receive":
		r.receive(step)
	case "end":
		r.end(step, now)
	case "compare":
		r.compare(step)
	default:
		r.t.Fatalf("unknown step %q", step.Do)
	}
}

func (r *caseRunner) open(step watchStep, now time.Time) {
	r.t.Helper()
	var expected *pb.ResumeToken
	if step.Resume != nil {
		expected = &pb.ResumeToken{Epoch: step.Resume.Epoch, Revision: number(r.t, step.Resume.Revision)}
	}
	if resume := r.protocol.Resume(); resume.String() != expected.String() {
		r.t.Fatalf("the stream resumes at %v, not at %v", resume, expected)
	}
	r.protocol.Opened(now)
}

func (r *caseRunner) receive(step watchStep) {
	r.t.Helper()
	event := &pb.WatchResponse{}
	if err := protojson.Unmarshal(step.Event, event); err != nil {
		r.t.Fatal(err)
	}
	done, err := r.protocol.Received(event)
	r.failure = err
	if kind := kindOf(done, err); kind != step.Step {
		r.t.Fatalf("%s gives %s (%v), not %s", step.Event, kind, err, step.Step)
	}
	if done != nil {
		r.table.Write(done, r.protocol.HasTraffic())
	}
	switch done := done.(type) {
	case Apply:
		for i, change := range done.Changes {
			if len(done.Changes) != len(step.Revisions) || change.GetRevision() != number(r.t, step.Revisions[i]) {
				r.t.Fatalf("%v are applied, not %v", done.Changes, step.Revisions)
			}
		}
	case Confirm:
		if step.First != nil && (done.First != *step.First || done.Age != seconds(step.AgeSeconds) || done.ReportProgress != step.Report) {
			r.t.Fatalf("%+v is not what %+v says", done, step)
		}
	}
}

func (r *caseRunner) end(step watchStep, now time.Time) {
	r.t.Helper()
	err := r.failure
	if step.Code != "FAIL" && step.Code != "OK" {
		err = &Error{Code: codes.Code(code.Code_value[step.Code]), RetryDelay: seconds(step.RetrySeconds)}
	}
	pause := r.protocol.Ended(err, now)
	// Without a random part all of a pause, and with the largest half of it; what a server asks for only grows.
	expected := seconds(step.Pause[1])
	if (r.random == 1) != (step.RetrySeconds == step.Pause[0]) {
		expected = seconds(step.Pause[0])
	}
	if pause != expected {
		r.t.Fatalf("after %s the pause is %s, not %s", step.Code, pause, expected)
	}
}

func (r *caseRunner) compare(step watchStep) {
	r.t.Helper()
	live := map[string]string{}
	traffic := map[string]map[string]int32{}
	for name, each := range r.table.families {
		for version := range each.routes {
			if route, found := r.table.Resolve(name + "/" + version); found {
				live[name+"/"+version] = route.GetUrl()
			}
		}
		if each.traffic != nil {
			traffic[name] = weights(each.traffic)
		}
	}
	if !maps.Equal(live, step.Live) {
		r.t.Fatalf("the table has %v, not %v", live, step.Live)
	}
	if step.HasTraffic != nil && r.table.hasTraffic != *step.HasTraffic {
		r.t.Fatalf("that the table has all traffic is %v", r.table.hasTraffic)
	}
	if step.Traffic != nil && !maps.EqualFunc(traffic, step.Traffic, maps.Equal[map[string]int32]) {
		r.t.Fatalf("the traffic is %v, not %v", traffic, step.Traffic)
	}
}

func weights(traffic *pb.Traffic) map[string]int32 {
	found := map[string]int32{}
	for _, target := range traffic.GetTargets() {
		found[target.GetVersion()] = target.GetWeight()
	}
	return found
}

func kindOf(step Step, err error) string {
	if err != nil {
		return "fail"
	}
	switch step.(type) {
	case Replace:
		return "replace"
	case Apply:
		return "apply"
	case Confirm:
		return "confirm"
	}
	return "none"
}

func seconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Second))
}

func number(t *testing.T, text string) (value int64) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	return value
}
