package kubernetes

import (
	"flag"
	"io"
	"os"
	"strconv"
	"testing"

	"google.golang.org/grpc/grpclog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/klog/v2"

	"github.com/sharder/sharder/integration/harness"
)

// The types that the suite stores: the example pods of apiserver.
var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

func newPod() runtime.Object     { return &example.Pod{} }
func newPodList() runtime.Object { return &example.PodList{} }

// TestMain has no check for leaked goroutines: apiserver leaves some by design, such as
// the flusher of its log.
func TestMain(m *testing.M) {
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(scheme))
	utilruntime.Must(examplev1.AddToScheme(scheme))
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	flag.Parse()
	if err := sideBySide(); err != nil {
		panic(err)
	}
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// sideBySide lets all targets run at once however few processors there are: they sleep
// most of the time.
func sideBySide() error {
	if os.Getenv(targetVariable) != "" {
		return nil
	}
	return flag.Set("test.parallel", strconv.Itoa(len(targets)))
}
