package pointsman

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	pb "example.com/pointsman/gen/pointsman/v1"
)

// vectors are those of selection_vectors.json, which every implementation of the rule is tested with.
type vectors struct {
	Words []struct {
		Family    string
		StickyKey string `json:"sticky_key"`
		Words     []string
	}
	Cases []struct {
		Name       string
		Family     string
		Traffic    json.RawMessage
		Active     []string
		Selections []struct {
			StickyKey        string `json:"sticky_key"`
			Version          string
			Rule             Rule
			InactiveVersions []string `json:"inactive_versions"`
			Error            string
		}
	}
}

func readVectors(t *testing.T) (read vectors) {
	content, err := os.ReadFile("testdata/selection_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &read); err != nil {
		t.Fatal(err)
	}
	if len(read.Cases) == 0 || len(read.Words) == 0 {
		t.Fatal("there are no vectors")
	}
	return read
}

func TestWords(t *testing.T) {
	for _, each := range readVectors(t).Words {
		row := words{prefix: each.Family + "\n" + each.StickyKey}
		for number, expected := range each.Words {
			if word := strconv.FormatUint(row.next(), 10); word != expected {
				t.Fatalf("word %d of %q is %s, not %s", number, each.StickyKey, word, expected)
			}
		}
	}
}

func TestSelectionVectors(t *testing.T) {
	for _, each := range readVectors(t).Cases {
		t.Run(each.Name, func(t *testing.T) {
			var traffic *pb.Traffic
			if string(each.Traffic) != "null" {
				traffic = &pb.Traffic{}
				if err := protojson.Unmarshal(each.Traffic, traffic); err != nil {
					t.Fatal(err)
				}
			}
			for _, expected := range each.Selections {
				choice, err := Choose(each.Family, traffic, each.Active, expected.StickyKey)
				if reason := reasonOf(err); reason != expected.Error {
					t.Fatalf("%q: the error is %q, not %q", expected.StickyKey, reason, expected.Error)
				}
				if choice.Version != expected.Version || choice.Rule != expected.Rule ||
					!slices.Equal(choice.InactiveVersions, expected.InactiveVersions) {
					t.Fatalf("%q: %+v is chosen, not %+v", expected.StickyKey, choice, expected)
				}
			}
		})
	}
}

func TestWithoutAStickyKeyTheChoiceIsRandom(t *testing.T) {
	traffic := &pb.Traffic{Slices: []*pb.TrafficSlice{{Version: "v1", Size: 5_000}, {Version: "v2", Size: 5_000}}}
	seen := map[string]bool{}
	for range 200 {
		choice, err := Choose("team-a/payments/prod", traffic, []string{"v1", "v2"}, "")
		if err != nil {
			t.Fatal(err)
		}
		seen[choice.Version] = true
	}
	if len(seen) != 2 {
		t.Fatalf("only %v was chosen", seen)
	}
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, ErrNoActiveVersion):
		return "NO_ACTIVE_VERSION"
	case errors.Is(err, ErrAmbiguousVersion):
		return "AMBIGUOUS_VERSION"
	}
	return ""
}
