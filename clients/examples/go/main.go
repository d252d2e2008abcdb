// Command pointsman-example resolves keys, and prints the changes of a tenant's routes as they are made.
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
	"syscall"
	"time"

	pb "example.com/pointsman/gen/pointsman/v1"
	"example.com/pointsman/pointsman"
)

const usage = `usage: pointsman-example resolve [options] KEY...
       pointsman-example watch [options] --tenant TENANT
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, arguments []string) int {
	if len(arguments) == 0 || (arguments[0] != "resolve" && arguments[0] != "watch") {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	var options pointsman.Options
	flags.StringVar(&options.Target, "server", environment("POINTSMAN_SERVER", "localhost:50051"), "the gRPC target")
	flags.BoolVar(&options.TLS, "tls", false, "use TLS with the certificates of the system")
	flags.StringVar(&options.CAFile, "ca-file", os.Getenv("POINTSMAN_CA_FILE"), "certificates to trust instead, in PEM; implies TLS")
	timeout := flags.Float64("timeout", 5, "the deadline of each call, in seconds")
	tokenFile := flags.String("token-file", os.Getenv("POINTSMAN_TOKEN_FILE"), "a file with the bearer token; or set POINTSMAN_TOKEN")
	var filter pointsman.Filter
	silence := pointsman.Silence.Seconds()
	if arguments[0] == "watch" {
		flags.StringVar(&filter.Tenant, "tenant", "", "the tenant whose routes to watch")
		flags.StringVar(&filter.Service, "service", "", "only routes of this service")
		flags.StringVar(&filter.Env, "env", "", "only routes of this env")
		flags.Float64Var(&silence, "silence", silence, "close a stream that has brought nothing for so many seconds")
	}
	_ = flags.Parse(arguments[1:]) // it exits by itself
	if (arguments[0] == "resolve") == (flags.NArg() == 0) || (arguments[0] == "watch" && filter.Tenant == "") {
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
	if arguments[0] == "resolve" {
		return resolve(ctx, client, flags.Args())
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
	text := fmt.Sprintf("%d %s %s", change.GetRevision(), kind, pointsman.KeyText(change.GetKey()))
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
