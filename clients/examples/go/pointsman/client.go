// Package pointsman is a small client of Pointsman: it resolves keys, and keeps a table of routes current.
package pointsman

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "example.com/pointsman/gen/pointsman/v1"
)

// serviceConfig says which methods gRPC itself retries, and when. It is the same for clients in every language.
//
//go:embed service-config.json
var serviceConfig string

const (
	// maxAttempts bounds the attempts that the client makes above those of gRPC.
	maxAttempts = 4
	// maxReceiveBytes is larger than gRPC's 4 MiB: one change may have two routes with long URLs and many labels.
	maxReceiveBytes = 128 << 20
	defaultTimeout  = 5 * time.Second
)

// Options say how to connect.
type Options struct {
	// Target is a gRPC target, such as localhost:50051 or dns:///pointsman:50051.
	Target string
	// TLS encrypts the connection, and trusts the certificates of the system.
	TLS bool
	// CAFile has the certificates to trust instead, in PEM. It implies TLS.
	CAFile string
	// Token returns the bearer token. It is asked for each call, so that the token can be renewed. May be nil.
	Token func() (string, error)
	// Timeout bounds each unary call whose context has no deadline. 0 stands for 5 seconds.
	Timeout time.Duration
}

// Client calls the servers of one target. It may be used by many goroutines at once.
type Client struct {
	connection *grpc.ClientConn
	routes     pb.RouteServiceClient
	timeout    time.Duration
}

// NewClient prepares a client. It connects with the first call.
func NewClient(options Options) (*Client, error) {
	transport, err := transportCredentials(options)
	if err != nil {
		return nil, err
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceiveBytes)),
		// gRPC's default pause between two attempts to connect grows to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	if options.Token != nil {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer{options.Token}))
	}
	connection, err := grpc.NewClient(options.Target, dial...)
	if err != nil {
		return nil, err
	}
	timeout := options.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Client{connection, pb.NewRouteServiceClient(connection), timeout}, nil
}

// Close closes the connections. Calls that are under way fail.
func (c *Client) Close() error {
	return c.connection.Close()
}

// Resolve returns the live route of a key such as team-a/payments/prod/v1. What fails is an *Error.
//
// UNAVAILABLE is retried by gRPC, as the service config says. RESOURCE_EXHAUSTED is retried here, because its pause is
// in the details of the status: RetryInfo.
func (c *Client) Resolve(ctx context.Context, key string) (*pb.ResolveResponse, error) {
	routeKey, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	return call(ctx, c.timeout, c.routes.Resolve, &pb.ResolveRequest{Key: routeKey})
}

// Select returns the route of a family, tenant/service/env, that a caller is to use, from the server. See Table.Select.
func (c *Client) Select(ctx context.Context, family, stickyKey string) (*pb.SelectResponse, error) {
	key, err := ParseKey(family + "/any")
	if err != nil {
		return nil, &Error{Code: codes.InvalidArgument, Message: fmt.Sprintf("%q must be tenant/service/env", family)}
	}
	return call(ctx, c.timeout, c.routes.Select, &pb.SelectRequest{
		Tenant: key.GetTenant(), Service: key.GetService(), Env: key.GetEnv(), StickyKey: stickyKey,
	})
}

// call makes a unary call, again where the server says when. Without a deadline of the caller it has the timeout.
func call[Request, Response any](
	ctx context.Context,
	timeout time.Duration,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (response Response, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for attempt := 1; ; attempt++ {
		response, err = method(ctx, request)
		if err == nil {
			return response, nil
		}
		failure := AsError(err)
		if attempt == maxAttempts || !pauseFor(ctx, failure) {
			return response, failure
		}
	}
}

// ParseKey reads tenant/service/env/version. Which characters a part may have is the server's to say.
func ParseKey(text string) (*pb.RouteKey, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		return nil, &Error{Code: codes.InvalidArgument, Message: fmt.Sprintf("%q must be tenant/service/env/version", text)}
	}
	return &pb.RouteKey{Tenant: parts[0], Service: parts[1], Env: parts[2], Version: parts[3]}, nil
}

// KeyText is the reverse of ParseKey. The key of a change of traffic has no version: tenant/service/env/.
func KeyText(key *pb.RouteKey) string {
	return strings.Join([]string{key.GetTenant(), key.GetService(), key.GetEnv(), key.GetVersion()}, "/")
}

// pauseFor waits for as long as a server that is overloaded asks for. It returns false where another attempt is
// pointless: after other errors, or when the deadline would come first.
func pauseFor(ctx context.Context, failure *Error) bool {
	if failure.Code != codes.ResourceExhausted || failure.RetryDelay == 0 {
		return false
	}
	// Never earlier than asked for, and not all callers at once.
	pause := time.Duration(float64(failure.RetryDelay) * (1 + rand.Float64()/4))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return false
	}
	return sleep(ctx, pause)
}

// sleep waits for the pause, and returns false when the context ends first.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func transportCredentials(options Options) (credentials.TransportCredentials, error) {
	if options.CAFile == "" {
		if options.TLS {
			return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), nil
		}
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(options.CAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", options.CAFile)
	}
	return credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}), nil
}

// bearer sends the token with each call.
type bearer struct {
	token func() (string, error)
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b.token()
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity allows plaintext, because a mesh or a proxy on this machine may do the TLS.
func (bearer) RequireTransportSecurity() bool {
	return false
}
