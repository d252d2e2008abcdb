// Command pointsman-example resolves keys, selects versions for callers, and prints the changes of a tenant's routes and
// traffic as they are made.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "example.com/pointsman/gen/pointsman/v1"
	"example.com/pointsman/pointsman"
)

const usage = `usage: pointsman-example resolve [options] KEY...
       pointsman-example select [options] TENANT/SERVICE/ENV STICKY_KEY...
       pointsman-example watch [options] --tenant TENANT
`

// least is how many arguments a command has besides its options.
var least = map[string]int{"resolve": 1, "select": 2, "watch": 0}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, arguments []string) int {
	if len(arguments) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	command := arguments[0]
	count, known := least[command]
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	var options pointsman.Options
	flags.StringVar(&options.Target, "server", environment("POINTSMAN_SERVER", "localhost:50051"), "the gRPC target")
	flags.BoolVar(&options.TLS, "tls", false, "use TLS with the certificates of the system")
	flags.StringVar(&options.CAFile, "ca-file", os.Getenv("POINTSMAN_CA_FILE"), "certificates to trust instead, in PEM; implies TLS")
	timeout := flags.Float64("timeout", 5, "the deadline of each call, in seconds")
	tokenFile := flags.String("token-file", os.Getenv("POINTSMAN_TOKEN_FILE"), "a file with the bearer token; or set POINTSMAN_TOKEN")
	var filter pointsman.Filter
	silence := pointsman.Silence.Seconds()
	if command == "watch" {
		flags.StringVar(&filter.Tenant, "tenant", "", "the tenant whose routes to watch")
		flags.StringVar(&filter.Service, "service", "", "only routes of this service")
		flags.StringVar(&filter.Env, "env", "", "only routes of this env")
		flags.Float64Var(&silence, "silence", silence, "close a stream that has brought nothing for so many seconds")
	}
	_ = flags.Parse(arguments[1:]) // it exits by itself
	tooMany := command == "watch" && (flags.NArg() > 0 || filter.Tenant == "")
	if !known || flags.NArg() < count || tooMany {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	options.Token = tokenSource(*tokenFile)
	options.Timeout = seconds(*timeout)
	client, err := pointsman.NewClient(options)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	defer client.Close()
	switch command {
	case "resolve":
		return resolve(ctx, client, flags.Args())
	case "select":
		return selectFor(ctx, client, flags.Arg(0), flags.Args()[1:], options.Timeout)
	}
	watch(ctx, client, filter, seconds(silence))
	return 0
}

func seconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Second))
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// tokenSource reads the file for each call, because another program may renew it.
func tokenSource(file string) func() (string, error) {
	if file != "" {
		return func() (string, error) {
			content, err := os.ReadFile(file)
			return strings.TrimSpace(string(content)), err
		}
	}
	if token := os.Getenv("POINTSMAN_TOKEN"); token != "" {
		return func() (string, error) { return token, nil }
	}
	return nil
}

func resolve(ctx context.Context, client *pointsman.Client, keys []string) int {
	exit := 0
	for _, key := range keys {
		response, err := client.Resolve(ctx, key)
		if err != nil {
			printError(err)
			exit = 1
			continue
		}
		fmt.Println(response.GetRoute().GetUrl())
	}
	return exit
}

// selectFor prints the version and the URL for each caller, from a table that it keeps meanwhile.
func selectFor(ctx context.Context, client *pointsman.Client, family string, stickyKeys []string, timeout time.Duration) int {
	parts := append(strings.Split(family, "/"), "", "")
	watcher := pointsman.NewWatcher(client, pointsman.Filter{Tenant: parts[0], Service: parts[1], Env: parts[2]})
	live := make(chan struct{})
	var once sync.Once
	watcher.OnStep = func(step pointsman.Step) {
		if _, ok := step.(pointsman.Confirm); ok {
			once.Do(func() { close(live) })
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watcher.Run(ctx)
	select {
	case <-live:
	case <-time.After(timeout): // the server is asked for all of them
	}
	exit := 0
	for _, stickyKey := range stickyKeys {
		route, choice, err := watcher.Table.Select(family, stickyKey)
		if errors.Is(err, pointsman.ErrTrafficUnknown) {
			var response *pb.SelectResponse
			response, err = client.Select(ctx, family, stickyKey)
			route, choice.Version = response.GetRoute(), response.GetChoice().GetVersion()
		}
		if err != nil {
			printError(err)
			exit = 1
			continue
		}
		fmt.Println(choice.Version, route.GetUrl())
	}
	return exit
}

func printError(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	var failure *pointsman.Error
	if !errors.As(err, &failure) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(failure.Metadata)) {
		fmt.Fprintf(os.Stderr, "  %s: %s\n", name, failure.Metadata[name])
	}
	for _, violation := range failure.Violations {
		fmt.Fprintf(os.Stderr, "  field %s: %s\n", violation.GetField(), violation.GetDescription())
	}
	if failure.RetryDelay > 0 {
		fmt.Fprintf(os.Stderr, "  retry after: %.3f s\n", failure.RetryDelay.Seconds())
	}
}

func watch(ctx context.Context, client *pointsman.Client, filter pointsman.Filter, silence time.Duration) {
	host, _ := os.Hostname()
	watcher := pointsman.NewWatcher(client, filter)
	watcher.Name = "go-example@" + host
	watcher.Silence = silence
	watcher.OnStep = printStep
	watcher.OnInterruption = func(err error, resume *pb.ResumeToken, pause time.Duration) {
		if err == nil {
			err = errors.New("the server ended the stream")
		}
		next := "starting over"
		if resume != nil {
			next = fmt.Sprintf("resuming after revision %d", resume.GetRevision())
		}
		fmt.Fprintf(os.Stderr, "interrupted: %v; %s in %.3f s\n", err, next, pause.Seconds())
	}
	watcher.Run(ctx)
}

func printStep(step pointsman.Step) {
	switch step := step.(type) {
	case pointsman.Replace:
		fmt.Printf("snapshot of %d routes at revision %d\n", len(step.Routes), step.AsOf.Revision)
	case pointsman.Apply:
		for _, change := range step.Changes {
			fmt.Println(changeText(change))
		}
	case pointsman.Confirm:
		if step.First {
			fmt.Printf("live at revision %d\n", step.AsOf.Revision)
		}
	}
}

func changeText(change *pb.RouteChange) string {
	kind := strings.TrimPrefix(change.GetKind().String(), "CHANGE_KIND_")
	key := strings.TrimSuffix(pointsman.KeyText(change.GetKey()), "/")
	text := fmt.Sprintf("%d %s %s", change.GetRevision(), kind, key)
	for _, target := range change.GetTrafficAfter().GetTargets() {
		text = fmt.Sprintf("%s %s=%d", text, target.GetVersion(), target.GetWeight())
	}
	after := change.GetAfter()
	if after == nil {
		return text
	}
	state := "inactive"
	if after.GetActive() {
		state = "active"
	}
	return fmt.Sprintf("%s %s %s", text, after.GetUrl(), state)
}
