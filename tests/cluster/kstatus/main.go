// Command kstatus says of each object on its input (JSON, one after the other) what Flux and kubectl's other readers of
// status make of it: its status and why, one line of JSON each.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Status  status.Status `json:"status"`
	Message string        `json:"message"`
}

func main() {
	if err := judge(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judge(in io.Reader, out io.Writer) error {
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for {
		object := map[string]any{}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		found, err := status.Compute(&unstructured.Unstructured{Object: whole(object)})
		if err != nil {
			return err
		}
		if err := encoder.Encode(verdict{found.Status, found.Message}); err != nil {
			return err
		}
	}
}

// whole makes the numbers of an object integers where they are, as Kubernetes' own decoder does.
func whole(object map[string]any) map[string]any {
	for key, value := range object {
		object[key] = integer(value)
	}
	return object
}

func integer(value any) any {
	switch value := value.(type) {
	case float64:
		if number := int64(value); float64(number) == value {
			return number
		}
	case map[string]any:
		return whole(value)
	case []any:
		for index, item := range value {
			value[index] = integer(item)
		}
	}
	return value
}
