// knative-admission FILE … : what Knative's admission webhooks would say of the Services and SinkBindings in these
// files. Its validation is code that schemas do not hold (allowed fields, probes, annotations, ranges).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/util/yaml"
	sources "knative.dev/eventing/pkg/apis/sources/v1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/config"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	sigs "sigs.k8s.io/yaml"
)

type resource interface {
	SetDefaults(context.Context)
	Validate(context.Context) *apis.FieldError
}

// A new resource of the kind that a document says it is; nil: not one of Knative's.
func resourceOf(document []byte) (resource, error) {
	var kind struct{ APIVersion, Kind string }
	if err := sigs.Unmarshal(document, &kind); err != nil {
		return nil, err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "serving.knative.dev/v1 Service":
		return &serving.Service{}, nil
	case "sources.knative.dev/v1 SinkBinding":
		return &sources.SinkBinding{}, nil
	}
	return nil, nil
}

// Prints what is wrong in one file. Returns how many of its resources were checked and refused.
func check(path string) (checked, refused int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	ctx := config.ToContext(context.Background(), config.FromContextOrDefaults(context.Background()))
	for reader := yaml.NewYAMLReader(bufio.NewReader(file)); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return checked, refused, nil
		} else if err != nil {
			return checked, refused, err
		}
		found, err := resourceOf(document)
		if err != nil {
			return checked, refused, err
		} else if found == nil {
			continue
		}
		if err := sigs.UnmarshalStrict(document, found); err != nil {
			return checked, refused, err
		}
		found.SetDefaults(apis.WithinCreate(ctx))
		checked++
		if problem := found.Validate(apis.WithinCreate(ctx)); problem != nil {
			refused++
			fmt.Printf("%s: %s\n", path, problem)
		}
	}
}

func main() {
	all, bad := 0, 0
	for _, path := range os.Args[1:] {
		checked, refused, err := check(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "knative-admission: %s: %s\n", path, err)
			os.Exit(2)
		}
		all, bad = all+checked, bad+refused
	}
	fmt.Printf("%d checked, %d refused\n", all, bad)
	if bad > 0 {
		os.Exit(1)
	}
}
