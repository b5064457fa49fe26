package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

// compare looks for what is expected in a result; what is not named may have any value.
func compare(expected, result map[string]any) error {
	for name, want := range expected {
		if got := result[name]; !matches(name, want, got) {
			return fmt.Errorf("%s is %s, want %s", name, short(got), short(want))
		}
	}
	return nil
}

// matches compares a value with what is wanted: the same, or {"contains": PART}. A cause always needs to have a part only.
func matches(name string, want, got any) bool {
	part, isMap := want.(map[string]any)
	if isMap {
		want = part["contains"]
	}
	if list, ok := got.([]any); ok {
		if isMap {
			for _, item := range list {
				if item == want {
					return true
				}
			}
			return false
		}
		return reflect.DeepEqual(got, want) || len(list) == 0 && reflect.ValueOf(want).Len() == 0
	}
	if isMap || name == "cause" {
		return strings.Contains(fmt.Sprint(got), fmt.Sprint(want))
	}
	return fmt.Sprint(got) == fmt.Sprint(want)
}

var errorTypes = map[string]error{
	"NotFound": hodei.ErrNotFound, "InvalidArgument": hodei.ErrInvalidArgument, "FailedPrecondition": hodei.ErrFailedPrecondition,
	"PermissionDenied": hodei.ErrPermissionDenied, "Unauthenticated": hodei.ErrUnauthenticated, "QuotaExceeded": hodei.ErrQuotaExceeded,
	"Unavailable": hodei.ErrUnavailable, "VersionSkew": hodei.ErrVersionSkew, "WaitTimeout": hodei.ErrWaitTimeout,
	"JobFailed": hodei.ErrJobFailed, "JobCanceled": hodei.ErrJobCanceled, "JobTimeout": hodei.ErrJobTimeout,
	"ConfigurationError": hodei.ErrConfiguration,
}

// compareError compares an error with what is wanted of it.
func compareError(want map[string]any, err error) error {
	if err == nil {
		return fmt.Errorf("it succeeded, want the error %v", want)
	}
	kind := fmt.Sprint(want["type"])
	if target := errorTypes[kind]; target == nil || !errors.Is(err, target) {
		return fmt.Errorf("the error is no %s: %w", kind, err)
	}
	got := map[string]any{"type": kind, "contains": err.Error()}
	var own *hodei.Error
	if errors.As(err, &own) {
		got["reason"] = own.Reason
	}
	var job *hodei.JobError
	if errors.As(err, &job) {
		got["exit_code"], got["signal"] = job.ExitCode(), job.Signal()
		tail := []any{}
		for _, line := range job.LogTail {
			tail = append(tail, line)
		}
		got["log_tail"] = tail
	}
	for name, value := range want {
		if name == "contains" {
			value = map[string]any{"contains": value}
		}
		if !matches(name, value, got[name]) {
			return fmt.Errorf("%s of the error is %s, want %s", name, short(got[name]), short(value))
		}
	}
	return nil
}

func short(value any) string {
	text := fmt.Sprintf("%q", fmt.Sprint(value))
	if len(text) > 600 {
		return text[:600] + "..."
	}
	return text
}
