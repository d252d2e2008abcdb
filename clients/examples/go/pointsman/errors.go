package pointsman

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// domain is that of the reasons of the service; a proxy may have others.
const domain = "pointsman.v1"

// Error is how a call failed: its status, and the details that the server sent with it.
type Error struct {
	Code    codes.Code
	Message string
	// Reason is what programs decide by, such as ROUTE_NOT_FOUND. Empty where the error is not one of the service.
	Reason string
	// Metadata belongs to the reason, for example the key and the revision as of which it was absent.
	Metadata map[string]string
	// Violations name each malformed field of the request.
	Violations []*errdetails.BadRequest_FieldViolation
	// RetryDelay is how long to wait before another attempt. 0 where the server does not say.
	RetryDelay time.Duration
}

// AsError reads the status and the details of an error of gRPC.
func AsError(err error) *Error {
	failed := status.Convert(err)
	result := &Error{Code: failed.Code(), Message: failed.Message()}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				result.Reason, result.Metadata = detail.GetReason(), detail.GetMetadata()
			}
		case *errdetails.BadRequest:
			result.Violations = detail.GetFieldViolations()
		case *errdetails.RetryInfo:
			result.RetryDelay = detail.GetRetryDelay().AsDuration()
		}
	}
	return result
}

// Error returns the code as the protocol names it, the reason and the message.
func (e *Error) Error() string {
	name := code.Code(e.Code).String()
	if e.Reason != "" {
		name += " " + e.Reason
	}
	return fmt.Sprintf("%s: %s", name, e.Message)
}
